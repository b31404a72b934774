"""What is drawn is read back from the SVG: lengths and places must be those of the numbers."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.report import charts

COLORS = {"basic": "#111111", "EUMS": "#222222"}


def elements(svg: str, kind: str, **wanted: str) -> list[dict]:
    tree = ElementTree.fromstring(svg)
    found = [node.attrib | {"text": node.text} for node in tree.iter() if node.tag.endswith(f"}}{kind}")]
    return [node for node in found if all(node.get(name) == value for name, value in wanted.items())]


def test_bars_are_as_long_as_their_values():
    rows = [
        ("cat", {"basic": 0.5, "EUMS": 0.25}),
        ("dog & co", {"basic": None, "EUMS": 1.0}),
        ("mean", {"basic": 0.5, "EUMS": 0.0}),
    ]
    svg = charts.bars(rows, COLORS, strong=1)
    lengths = {name: [float(r["width"]) for r in elements(svg, "rect", fill=color)] for name, color in COLORS.items()}
    full = lengths["EUMS"][1]
    assert full > 300
    assert lengths["EUMS"] == pytest.approx([full / 4, full, 0], abs=0.1)
    assert lengths["basic"] == pytest.approx([full / 2, 0, full / 2], abs=0.1)
    texts = [t["text"] for t in elements(svg, "text")]
    assert [t for t in texts if re.fullmatch(r"[\d.]+\.\d|-", t)] == ["50.0", "25.0", "-", "100.0", "50.0", "0.0"]
    assert "dog & co" in texts


def test_curve_points_lie_where_their_values_are():
    svg = charts.curves({"basic": [(0, 0.0), (5, 0.5), (10, 1.0)], "EUMS": []}, COLORS, "epoch", percent=True)
    dots = [(float(c["cx"]), float(c["cy"])) for c in elements(svg, "circle")]
    assert dots[1] == pytest.approx(np.mean([dots[0], dots[2]], axis=0), abs=0.1)  # half-way between both ends
    labels = {t["text"]: (float(t["x"]), float(t["y"])) for t in elements(svg, "text") if t["text"]}
    assert labels["100"][1] == pytest.approx(dots[2][1])  # 100 % beside the highest point
    assert labels["10"][0] == pytest.approx(dots[2][0])
    assert len(elements(svg, "polyline")) == 1


def test_histogram_counts_every_value_once():
    groups = {"clean": [0.0, 0.1, 0.1, 0.2], "unclean": [0.2, 0.9, 1.0]}
    colors = {"clean": "#111111", "unclean": "#222222"}
    svg = charts.histogram(groups, colors, "entropy", split=0.3)
    heights = {name: [float(r["height"]) for r in elements(svg, "rect", fill=color)] for name, color in colors.items()}
    one = min(heights["clean"])
    assert sum(heights["clean"]) == pytest.approx(4 * one, abs=0.2) and sum(heights["unclean"]) == pytest.approx(
        3 * one, abs=0.2
    )
    assert max(heights["clean"]) == pytest.approx(2 * one, abs=0.2)  # the two at 0.1 share a bin
    texts = {t["text"]: t for t in elements(svg, "text")}
    assert "4 clean" in texts and "3 unclean" in texts
    line = elements(svg, "line", **{"stroke-dasharray": "4 3"})[0]
    left, right = (float(texts[t]["x"]) for t in ("0", "1"))
    assert float(line["x1"]) == pytest.approx(left + 0.3 * (right - left), abs=0.1)


def test_stacked_bins_do_not_overlap():
    svg = charts.histogram(
        {"clean": [0.5] * 3, "unclean": [0.5, 1.0]}, {"clean": "#111111", "unclean": "#222222"}, "x", None
    )
    lower = elements(svg, "rect", fill="#111111")[0]
    upper = next(r for r in elements(svg, "rect", fill="#222222") if r["x"] == lower["x"])
    assert float(upper["y"]) + float(upper["height"]) == pytest.approx(float(lower["y"]), abs=0.15)


def test_heat_map_shades_numbers_and_frames():
    svg = charts.heat_map(np.array([[1.0, 0.0], [0.25, np.nan]]), ["a", "b"], ["x", "y → z"], {(1, 0)})
    cells = [r for r in elements(svg, "rect") if r["fill"] != "none"]
    assert [c["fill"] for c in cells] == [charts.shade(1), charts.shade(0), charts.shade(0.25), charts.shade(0)]
    frame = elements(svg, "rect", fill="none")
    assert [(f["x"], f["y"]) for f in frame] == [(cells[2]["x"], cells[2]["y"])]
    assert [t["text"] for t in elements(svg, "text")] == ["x", "y → z", "a", "100", "b", "25"]


def test_cells_left_out_are_not_drawn():
    svg = charts.heat_map(np.array([[0.5, 0.0], [np.nan, 1.0]]), ["a", "b"], ["x", "y"], empty={(1, 0)})
    cells = [r["fill"] for r in elements(svg, "rect")]
    assert cells == [charts.shade(0.5), charts.shade(0), charts.shade(1)]


def test_colours_in_order():
    colors = charts.series_colors("abcdefghijk")
    assert [colors[name] for name in "abk"] == [charts.SERIES[0], charts.SERIES[1], charts.SERIES[0]]
    assert len(set(charts.SERIES)) == 10


def test_curves_without_points_are_nothing():
    assert charts.curves({"basic": []}, COLORS, "epoch") == charts.curves({}, {}, "epoch") == ""


def test_there_is_no_half_epoch_on_an_axis():
    svg = charts.curves({"basic": [(0, 0.5), (1, 1.0)]}, COLORS, "epoch")
    below = [t["text"] for t in elements(svg, "text") if t["text-anchor"] == "middle"]
    assert below == ["0", "1", "epoch"]


def test_shades_get_darker():
    sums = [sum(bytes.fromhex(charts.shade(s)[1:])) for s in np.linspace(0, 1, 11)]
    assert sums == sorted(sums, reverse=True) and len(set(sums)) == 11


@given(st.floats(-1e4, 1e4), st.floats(0, 1e5, allow_subnormal=False), st.integers(3, 8))
def test_ticks_enclose_the_values_evenly(low, span, count):
    marks = charts.ticks(low, low + span, count)
    tolerance = 1e-6 * max(1, abs(low), span)
    assert marks[0] <= low + tolerance and marks[-1] >= low + span - tolerance
    assert 2 <= len(marks) <= count + 3
    np.testing.assert_allclose(np.diff(marks), marks[1] - marks[0], rtol=1e-6, atol=1e-9 * max(1, abs(low)))


def test_ticks_by_hand():
    assert charts.ticks(0, 0.37, 4) == [0, 0.1, 0.2, 0.3, 0.4]
    assert charts.ticks(0, 400, 5) == [0, 100, 200, 300, 400]


def test_thinning_averages_neighbours():
    assert charts.thin([(0, 1.0), (1, 3.0), (2, 5.0), (3, 7.0)], most=2) == [(0.5, 2.0), (2.5, 6.0)]
    assert charts.thin([(1, 2.0)]) == [(1, 2.0)] and charts.thin([]) == []


def test_scatter_places_points_by_hand():
    """Two panels 100 wide: the corners of the data lie 8 inside each frame, the shorter axis in its middle."""
    wide, tall = np.array([[0.0, 0], [2, 1]]), np.array([[0.0, 0], [0, 5]])
    colors = {"a": "#ff0000", "b": "#00ff00", "unused": "#0000ff"}
    svg = charts.scatter({"one": wide, "two": tall}, ["a", "b"], colors, width=100)
    dots = elements(svg, "circle")
    assert [(float(d["cx"]), float(d["cy"])) for d in dots[:4]] == [(8, 97), (92, 55), (164, 118), (164, 34)]
    assert [d["fill"] for d in dots] == ["#ff0000", "#00ff00"] * 3  # the last two: the legend, groups in use
    assert [t["text"] for t in elements(svg, "text")] == ["one", "two", "a", "b"]
    assert len(elements(charts.scatter({"one": np.ones((2, 2))}, ["a", "a"], colors), "circle")) == 3
