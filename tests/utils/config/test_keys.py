"""What makes a finished stage another one."""

import pytest

from utils.config.discovery import DiscoveryConfig
from utils.config.keys import first_difference


@pytest.mark.parametrize(
    "now, before, found",
    [
        ({"q": 0.7}, {"q": 0.7}, None),
        ({"q": 0.7}, {"q": 0.2}, "own.q: 0.2 there, 0.7 now"),
        ({"q": 0.7}, {}, "own.q: None there, 0.7 now"),
        ({}, {"q": 0.7}, "own.q: 0.7 there, None now"),
        ({}, {}, None),
        ({"part": {"q": 1}}, {"part": {}}, "own.part.q: None there, 1 now"),
    ],
)
def test_free_keys_decide_the_stages_that_read_them(now, before, found):
    assert first_difference(DiscoveryConfig(own=now), {"own": before}, ("basic", "recipe", "own")) == found
    assert first_difference(DiscoveryConfig(own=now), {"own": before}, ("basic",)) is None
