"""The benchmarks check that both ways agree before they time them; here on sizes that take no time."""

import pytest

from benchmarks import evaluation, prototypes

SMALL = ["--images", "3", "--repeats", "1"]


@pytest.mark.parametrize("clusters", ["4", "7"])  # one-to-one and many-to-one matching
def test_evaluation(capsys, clusters):
    evaluation.main([*SMALL, "--batch", "2", "--size", "100", "--base", "3", "--novel", "4", "--clusters", clusters])
    assert f"match {clusters} clusters to 4 classes" in capsys.readouterr().out


def test_prototypes(capsys):
    prototypes.main([*SMALL, "--channels", "6", "--cells", "5", "--pixels", "32"])
    assert "adjoint on the mask" in capsys.readouterr().out
