from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveInt, ValidationError

from utils.config.common import NEUTRAL, Section


class Parent(Section):
    size: Annotated[PositiveInt, NEUTRAL] = Field(3, description="a size")
    rates: tuple[int, ...] = Field((1,), description="rates")
    kind: Literal["a", "b"] = Field("a", description="a kind")


class Child(Parent, defaults={"size": 5, "rates": [2, 4]}):
    own: int = Field(7, description="of the child alone")


class Grandchild(Child, defaults={"kind": "b"}):
    pass


def test_defaults_are_those_of_the_class_alone():
    assert Parent().model_dump() == {"size": 3, "rates": (1,), "kind": "a"}
    assert Child().model_dump() == {"size": 5, "rates": (2, 4), "kind": "a", "own": 7}
    assert Grandchild().model_dump() == {"size": 5, "rates": (2, 4), "kind": "b", "own": 7}


def test_other_defaults_hold_beside_keys_that_are_given():
    assert Child.model_validate({"kind": "b"}).size == 5
    assert Child.model_validate({"size": 9}).rates == (2, 4)


def test_limits_marks_and_descriptions_stay():
    with pytest.raises(ValidationError, match="greater than 0"):
        Child(size=0)
    field = Child.model_fields["size"]
    assert NEUTRAL in field.metadata and field.description == "a size"


@pytest.mark.parametrize("defaults", [{"sise": 5}, {"size": "five"}, {"size": 0}])
def test_wrong_defaults_are_errors_of_the_class(defaults):
    with pytest.raises(ValidationError, match=next(iter(defaults))):

        class Wrong(Parent, defaults=defaults):
            pass
