"""Published values of zero-shot segmentation against the identities between them."""

import pytest

from reports.zeroshot.table import TABLE
from utils.report.results import Stage

CLASSES = {"pascal": 21, "context": 60}
PUBLISHED = TABLE.paper.values


@pytest.mark.parametrize("key", PUBLISHED)
def test_means_follow_from_seen_and_unseen(key):
    """Harmonic is 2 s u / (s + u), all the mean over the classes of both; the paper rounds each of them."""
    values = {group: float(value.rstrip("*")) for group, value in PUBLISHED[key].items()}
    unseen = int(key[1].removeprefix("unseen"))
    if {"seen", "unseen"} <= values.keys():
        s, u = values["seen"], values["unseen"]
        assert values["harmonic"] == pytest.approx(2 * s * u / (s + u), abs=0.15)
        if "all" in values:
            count = CLASSES[key[0]]
            assert values["all"] == pytest.approx(((count - unseen) * s + unseen * u) / count, abs=0.7)


def test_values_are_read_with_their_marks():
    assert len(PUBLISHED) == 28
    assert PUBLISHED["pascal", "unseen2", "zs3"] == {
        "seen": "72.0",
        "unseen": "35.4",
        "all": "68.5*",
        "harmonic": "47.5",
    }
    assert PUBLISHED["context", "unseen2", "zs5"] == {"unseen": "55.5"}


def test_rows_of_stages(tmp_path):
    names = {"eval_zs3_strict": "zs3, strict", "eval_step1": "step1", "eval_gce": "gce", "zs3": None}
    assert {name: TABLE.method(Stage(tmp_path / name, "zs3", {}, {})) for name in names} == names
