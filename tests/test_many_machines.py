"""The SLURM job, the container and the model zoo of docs: what they run is there, options and keys are known."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from reports import result_table_of
from tests.test_readme import Command, stops, understand

__all__ = ["stops"]  # a fixture
ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "many_gpus.md").read_text()
BLOCKS = [block.replace("\\\n", " ") for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S)]
SBATCH = {  # options, and how their values look
    **{"job-name": r"\w+", "nodes": r"\d+", "ntasks-per-node": "1", "gpus-per-node": r"\d+", "cpus-per-task": r"\d+"},
    **{"time": r"\d+:\d\d:\d\d", "signal": r"USR1@\d+", "requeue": "", "open-mode": "append"},
}
INSTRUCTIONS = {"FROM", "RUN", "WORKDIR", "COPY", "ARG", "ENV", "ENTRYPOINT", "CMD"}


def inner(line: str, start: str) -> Command:
    """What a line runs from the word `start` on, up to what the shell does with its status."""
    words = shlex.split(line.split("||")[0])
    return Command("many_gpus.md", tuple(words[words.index(start) :]))


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_are_well_formed(block):
    subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_the_slurm_job(stops):
    [job] = [block for block in BLOCKS if "#SBATCH" in block]
    given = dict(re.fullmatch(r"--([\w-]+)=?(.*)", line).groups() for line in re.findall(r"^#SBATCH (.*)$", job, re.M))
    assert given.keys() == SBATCH.keys()
    assert all(re.fullmatch(SBATCH[name], value) for name, value in given.items()), given
    [line] = [line for line in job.splitlines() if line.startswith("srun ")]
    understand(inner(line, "python"), stops)


def test_the_container(stops):
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert len(lines) <= 12
    instructions = [line.split(maxsplit=1) for line in lines if not line.startswith("#")]
    assert {name for name, _ in instructions} <= INSTRUCTIONS and instructions[0][0] == "FROM"
    for name, rest in instructions:
        if name == "COPY":
            assert all((ROOT / path).exists() for path in rest.split()[:-1]), rest
    [(_, default)] = [pair for pair in instructions if pair[0] == "CMD"]
    assert (ROOT / default.strip('[]"')).is_file()
    [line] = [line for block in BLOCKS for line in block.splitlines() if line.startswith("docker run")]
    understand(inner(line, "scripts/chain.sh"), stops)


def test_the_zoo_holds_the_published_figures():
    """Those that the tables of the papers here hold, too."""
    text = (ROOT / "docs" / "model_zoo.md").read_text()
    discovery, probes, zero_shot = (result_table_of(system).paper.values for system in ("ncdss", "probe", "zs3"))
    for method, name in (("basic", "49.81"), ("EUMS", "59.09")):
        assert discovery["pascal", "mean", method]["novel mIoU"] == f"{float(name):.1f}" and name in text
    for probe in ("supervised saliency, ImageNet start", "unsupervised saliency, MoCo start"):
        values = probes["pascal", "", f"paper: {probe}"]
        assert f"k-means {values['k-means']}" in text
        assert f"{values['linear']}, with CRF {values['linear, CRF']}" in text
    for data, method in (("pascal", "zs3"), ("context", "zs3"), ("context", "zs3_gc")):
        for split in ("unseen2", "unseen10"):
            values = {group: value.rstrip("*") for group, value in zero_shot[data, split, method].items()}
            assert f"{values['unseen']} / {values['harmonic']}" in text, (data, split, method)
