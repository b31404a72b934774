"""A step of weak-shot training by two processes, started by torchrun, against the same step by one."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.test_train_weakshot import batch, config, pairs, recipe
from utils import dist
from utils.step import train_step

ROOT = Path(__file__).parents[1]
PROGRAM = """
import sys, torch
from tests.test_weakshot_distributed import two_steps
from utils import dist
torch.set_num_threads(1)
dist.init(torch.device("cpu"))
result = two_steps()
if dist.is_main():
    torch.save(result, sys.argv[1])
dist.shutdown()
"""


def two_steps() -> dict[str, torch.Tensor]:
    """Weights and counters after two steps of plain gradient descent on this process's share of two pairs.

    SimNet in evaluation mode: its BatchNorm would see half the pairs per process.
    """
    made = recipe(config())
    made.model.simnet.eval()
    optimizer = torch.optim.SGD([p for group in made.parameter_groups() for p in group["params"]], lr=0.01)
    share = {name: values[dist.rank() :: dist.world_size()] for name, values in pairs(batch()).items()}
    for _ in range(2):
        losses = train_step(made, {"pairs": share}, optimizer)
    assert losses.keys() >= {"cls", "focal", "dice", "comp", "sim", "dist"}
    return made.model.state_dict() | {"queue": made.queue}


def test_two_processes_are_one(tmp_path):
    start, one = recipe(config()).model.state_dict(), two_steps()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*launch, str(tmp_path / "program.py"), str(tmp_path / "both.pth")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    both = torch.load(tmp_path / "both.pth", weights_only=True)
    assert one["queue"].equal(both["queue"]) and len(one["queue"]) == 3
    moved = {name: (one[name] - value).abs().max().item() for name, value in start.items()}
    for name, far in moved.items():  # a GroupNorm of two values makes much of rounding
        assert (both[name] - one[name]).abs().max() <= 2e-3 * far + 1e-6, name
    assert moved["simnet.out_head.weight"] and moved["network.query_embed.weight"]
