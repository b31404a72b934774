"""docs/keys.md is current, and names every key."""

import re
from pathlib import Path

import pytest

from utils.config.common import Common, Training
from utils.config.keys import all_keys
from utils.config.reference import WIDTH, page
from utils.systems import SYSTEMS, schema_of

DOCUMENT = Path(__file__).parents[3] / "docs" / "keys.md"


def test_the_page_is_current():
    assert DOCUMENT.read_text() == page(), "run: python -m utils.config.reference > docs/keys.md"


def test_no_line_is_long():
    assert max(map(len, page().splitlines())) <= WIDTH


def listed(text: str) -> set[str]:
    return set(re.findall(r"^- `([\w.]+)`", text, re.M))


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_key_is_listed_once_where_it_belongs(system):
    common, part = page().split("## Training sections")
    training, rest = part.split("\n## ", 1)
    own = next(text for text in f"\n## {rest}".split("\n## ") if f"`system: {system}`" in text)
    sections = set(re.findall(r"`(\w+)`", (re.findall(r"^Training sections: (.*)$", own, re.M) or [""])[0]))
    assert listed(common) == set(all_keys(Common)) and listed(training) == set(all_keys(Training))
    found = listed(own)
    for key in all_keys(schema_of(system)):
        section, _, name = key.rpartition(".")
        assert key in found | listed(common) or (section in sections and name in listed(training)), key


def test_defaults_are_written_as_yaml_and_marks_in_words():
    items = " ".join(page().split())
    assert "- `data.cache` (`false`): keep decoded images in memory (small data sets only) (*neutral*)" in items
    assert "- `milestones` (`[15]`): " in items and "- `data.root` (none): " in items
    assert "(*all stages*; only with `data.images=mixed`)" in items
