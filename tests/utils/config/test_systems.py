from pathlib import Path

import pytest

from utils.config.reader import find_system
from utils.config.systems import SCHEMAS, systems_by_keys
from utils.errors import UserError


@pytest.mark.parametrize("system", SCHEMAS)
def test_configurations_from_before_the_key_system_are_told_by_their_keys(system):
    tree = SCHEMAS[system]().model_dump(mode="json")
    assert find_system(tree, "x") == system
    old = {key: value for key, value in tree.items() if key != "system"} | {"init_from": None}
    assert systems_by_keys(old) == [system] and find_system(old, "x") == system


def test_a_configuration_of_no_known_system():
    with pytest.raises(UserError, match="x.yaml: system: other is unknown; the systems are ncdss, "):
        find_system({"system": "other", "cluster": {}}, str(Path("x.yaml")))
    with pytest.raises(UserError, match="x.yaml: no key 'system'; add one of ncdss, "):
        find_system({"data": {}}, "x.yaml")
