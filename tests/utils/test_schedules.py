import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.schedules import poly_factor, poly_rate, sigmoid_rampup, step_factor, warm_poly_rate

VECTORS = Path(__file__).parents[1] / "fixtures" / "discovery" / "c5_schedules.json"
EPOCHS_AND_MILESTONE = {"base_pascal": (60, 25), "finetune_pascal": (30, 15), "coco_all_stages": (20, 15)}


@pytest.mark.parametrize("name", EPOCHS_AND_MILESTONE)
def test_rates_of_the_official_code(name):
    official = json.loads(VECTORS.read_text())[name]
    epochs, milestone = EPOCHS_AND_MILESTONE[name]
    assert len(official) == epochs
    for epoch, (decoder, backbone, ramp) in enumerate(official):
        assert 0.1 * step_factor(epoch, [milestone]) == decoder
        assert 0.001 * step_factor(epoch, [milestone]) == pytest.approx(backbone, rel=1e-14)
        # exp differs in its last bit between machines
        assert sigmoid_rampup(epoch, 5) == pytest.approx(ramp, rel=1e-15)


SSUL = json.loads((Path(__file__).parents[1] / "fixtures" / "incremental" / "schedules.json").read_text())


@pytest.mark.parametrize("name", SSUL)
def test_rates_per_iteration_of_the_official_code(name):
    case = SSUL[name]
    rate = {"poly": poly_rate, "warm_poly": warm_poly_rate}[case["kind"]]
    for step, expected in enumerate(case["lr_used_at_iteration"]):
        assert [rate(base, step, case["total"]) for base in case["base_lrs"]] == pytest.approx(expected, rel=1e-9)


def test_the_epoch_of_a_milestone_still_has_the_old_rate():
    assert [step_factor(e, [2, 4], decay=0.5) for e in range(7)] == [1, 1, 1, 0.5, 0.5, 0.25, 0.25]


def test_no_milestones():
    assert step_factor(100, []) == 1


def test_poly_by_hand():
    assert poly_factor(0) == 1
    assert poly_factor(0.75) == pytest.approx(0.25**0.9)
    assert poly_factor(0.5, power=2) == 0.25


def test_ramp_by_hand():
    assert sigmoid_rampup(0, 5) == math.exp(-5)
    assert sigmoid_rampup(2.5, 5) == math.exp(-5 / 4)
    assert sigmoid_rampup(-1, 5) == math.exp(-5)


def test_a_ramp_without_length_is_one_from_the_start():
    assert sigmoid_rampup(0, 0) == 1


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0.1, 50))
def test_ramp_never_falls_and_ends_at_one(a, b, length):
    low, high = sorted((a, b))
    assert sigmoid_rampup(low, length) <= sigmoid_rampup(high, length) <= sigmoid_rampup(length, length) == 1
