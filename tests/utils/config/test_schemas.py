from pathlib import Path

import pytest
from pydantic import ValidationError

from utils.config.common import Common, Decides
from utils.config.keys import walk
from utils.config.reader import find_system
from utils.errors import UserError
from utils.systems import SYSTEMS, schema_of


def test_a_configuration_of_no_known_system():
    with pytest.raises(UserError, match="x.yaml: system: other is unknown; the systems are ncdss, "):
        find_system({"system": "other", "cluster": {}}, str(Path("x.yaml")))
    with pytest.raises(UserError, match="x.yaml: no key 'system'; add one of ncdss, "):
        find_system({"data": {}}, "x.yaml")


@pytest.mark.parametrize(
    ("system", "tree"),
    [
        ("simformer", {"model": {"heads": 3}}),
        ("simformer", {"model": {"width": 48, "heads": 4}}),
        ("simformer", {"data": {"sizes": []}}),
        ("zs3", {"zs3": {"bandwidths": []}}),
        ("ncdss", {"model": {"atrous_rates": []}}),
    ],
)
def test_values_that_no_network_or_loss_can_have(system, tree):
    with pytest.raises(ValidationError):
        schema_of(system).model_validate(tree)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_key_that_a_system_redefines_decides_what_it_did(system):
    """A system with other defaults for `data` must not lose that data decide every stage."""
    common = {key: marks for key, _, marks in walk(Common)}
    for key, _, marks in walk(schema_of(system)):
        decides = {mark for mark in common.get(key, ()) if isinstance(mark, Decides)}
        assert decides <= set(marks), key
