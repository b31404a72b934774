"""The data root that scripts look for before they install is the one that commands use."""

import os
import subprocess
from pathlib import Path

import pytest

from scripts.data_root import data_root, main
from utils.config.reader import load_config
from utils.inputs import data_roots

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*/*.yaml"))


@pytest.mark.parametrize("environment", ["", "/from/environment"])
@pytest.mark.parametrize("pairs", [[], ["data.root=~/given", "seed=1"], ["data.root=null"], ["data.dataset=a/b"]])
def test_it_is_that_of_the_commands(pairs, environment, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_ROOT", environment)
    own = tmp_path / "own.yaml"
    own.write_text(
        f"base: {ROOT / 'configs/demo/discovery.yaml'}\ndata: {{root: '/from/file', dataset: demo}}  # root: no\n"
    )
    for config in (*CONFIGS, own):
        expected = data_roots(load_config([str(config), *pairs], ""))["root"]
        assert data_root(config, pairs) == expected, config


def test_a_folder_that_is_not_there(tmp_path, capsys):
    config = str(ROOT / "configs/discovery/pascal.yaml")
    assert main([config, f"data.root={tmp_path}"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}\n"
    assert main([config, f"data.root={tmp_path / 'none'}"]) == 2
    assert f"data.root={tmp_path / 'none'}: no such folder; set data.root" in capsys.readouterr().err
    assert main([str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: No such file or directory; nothing was installed" in capsys.readouterr().err


def run(script: str, *words: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in ("DATA_ROOT", "VIRTUAL_ENV")}
    command = ["bash", str(ROOT / "scripts" / script), *words]
    return subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("chain.sh", ["configs/discovery/pascal_subset.yaml"]),
        ("base_train.sh", []),
        ("zeroshot/voc.sh", []),
        ("incremental/voc.sh", []),
    ],
)
def test_nothing_is_installed_without_the_data(script, words, tmp_path):
    found = run(script, *words, "data.root=/none", VENV=str(tmp_path / "venv"))
    assert found.returncode == 2 and not (tmp_path / "venv").exists()
    assert found.stderr.startswith("error: data.root=/none: no such folder") and found.stderr.count("\n") == 1


@pytest.mark.parametrize("script", ["chain.sh", "discover.sh"])
def test_without_arguments_they_say_how(script):
    found = run(script, VENV="none")
    assert found.returncode == 2 and found.stderr == f"usage: scripts/{script} CONFIG.yaml [key=value ...]\n"


def test_an_active_environment_is_used_and_named(tmp_path):
    """With a python that says how it was called, in place of all stages."""
    (tmp_path / "python").write_text('#!/bin/sh\n[ "$1" = - ] || echo "$@"\n')
    (tmp_path / "python").chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "VIRTUAL_ENV": "/mine", "VENV": ""}
    found = run("chain.sh", "configs/demo/discovery.yaml", **variables)
    assert found.returncode == 0, found.stderr
    assert found.stderr == "using the active virtual environment /mine (VENV=DIR chooses another)\n"
    start = (
        "-m utils.chain --gpus 1 -- train_base.py configs/demo/discovery.yaml -- eval.py configs/demo/discovery.yaml "
    )
    assert found.stdout.startswith(start)
