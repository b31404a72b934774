"""Command lines of the README and of docs: scripts exist, configurations and keys are valid, options are known."""

import argparse
import ast
import importlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from torch.distributed.run import get_args_parser

from tests.examples.own_system.record import SUPERVISED
from utils import environment
from utils.config import reader
from utils.errors import UserError
from utils.systems import SYSTEMS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ENTRIES = sorted(ROOT.glob("*.py"))
SHELL_SCRIPTS = sorted((ROOT / "scripts").rglob("*.sh"))
START = re.compile(r"(?:[A-Z_0-9]+=\S+ +)*(?:python |torchrun |bash scripts/|scripts/\S+\.sh)")
CONFIGS = {  # in place of one that a document leaves open
    name: f"configs/demo/{'probe' if name == 'probe' else system.setting}.yaml" for name, system in SYSTEMS.items()
}
OPEN = re.compile(r"[A-Z_]*CONFIG(\.yaml)?|configs/mine\.yaml")  # the latter is written by prepare_data.py folder


class Command(NamedTuple):
    where: str
    words: tuple[str, ...]  # without variables in front


class Understood(Exception):  # noqa: N818
    """Raised where a script has read its arguments, and would begin."""


def commands(path: Path) -> Iterator[Command]:
    """Those in blocks of code, and those in the text between backquotes; of a script those in its help."""
    text = path.read_text()
    if path.suffix == ".py":
        text = re.sub(r"(?<=\S)   +.*", "", ast.get_docstring(ast.parse(text)) or "")  # remarks stand to the right
    blocks = re.findall(r"^    (?! )(.+)$", text.replace("\\\n", " "), re.M)
    fenced = [
        line.strip() for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S) for line in block.split("\n")
    ]
    inline = [
        " ".join(found.split())
        for found in re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    ]
    for line in dict.fromkeys([*blocks, *fenced, *inline]):
        if START.match(line):
            words = [word for word in shlex.split(line, comments=True) if word != "..." and not word.startswith("[")]
            words = words[: words.index(">")] if ">" in words else words
            while re.match(r"[A-Z_0-9]+=", words[0]):
                words.pop(0)
            yield Command(path.name, tuple(word for word in words if word != "key=value" and not word.endswith("]")))


COMMANDS = list(dict.fromkeys(command for path in (*DOCUMENTS, *ENTRIES) for command in commands(path)))


def test_there_are_commands():
    silent = {path.name for path in (*DOCUMENTS, *ENTRIES)} - {command.where for command in COMMANDS}
    assert silent <= {"prepare_data.py", "index.md"}, silent  # one lists its commands in its own form, one has none
    assert len(COMMANDS) > 60


@pytest.fixture
def stops(monkeypatch):
    """Scripts stop as soon as they have read their arguments."""
    parse = argparse.ArgumentParser.parse_args

    def understood(parser, *arguments):
        options = parse(parser, *arguments)
        if getattr(options, "config", None):  # prepare_data.py hands it on
            reader.load_config([complete(word, "ncdss") for word in options.config], "")
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", understood)
    monkeypatch.setitem(SYSTEMS, "supervised", SUPERVISED)  # as docs/own_method.md says
    return monkeypatch


def complete(word: str, system: str) -> str:
    return CONFIGS[system] if OPEN.fullmatch(word) else word


def start(module: str, words: list[str], monkeypatch) -> None:
    """Up to where it has read its arguments; an open configuration may be of any system that the script runs."""
    script = importlib.import_module(module)
    if not hasattr(script, "load_config"):
        with pytest.raises(Understood):
            script.main(words)
        return
    problems = []

    def read(*given):
        reader.load_config(*given)
        raise Understood

    monkeypatch.setattr(script, "load_config", read)
    for system in CONFIGS if any(OPEN.fullmatch(word) for word in words) else ["ncdss"]:
        try:
            script.main([complete(word, system) for word in words])
        except Understood:
            return
        except UserError as error:
            problems.append(str(error))
    raise AssertionError(problems)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.where}: {' '.join(command.words)}")
def test_command(command, stops):
    understand(command, stops)


def understand(command: Command, stops) -> None:
    """What it calls is there, and takes its arguments."""
    program, *words = command.words
    if program == "torchrun" or words[:2] == ["-m", "utils.launch"]:
        program, words = "python", launched(words if program == "torchrun" else words[2:])
    if program == "bash":
        program, *words = words
    if program.endswith(".sh"):
        shell_script(program, words)
    elif words[0] == "-m":
        python_module(words[1], words[2:], stops)
    elif words == ["report.py", "--env"]:  # of the machine, without a configuration
        assert environment.describe()
    elif words[0] != "ENTRY.py":
        assert (ROOT / words[0]).is_file(), words[0]
        start(words[0].removesuffix(".py").replace("/", "."), words[1:], stops)


@pytest.mark.parametrize(
    "line",
    [
        "python train_base.py configs/demo/discovery.yaml base_training.epoch=3",
        "python train_base.py configs/demo/incremental.yaml",
        "python train_base.py configs/demo/none.yaml",
        "python train_incremental.py CONFIG method=eums",
        "python predict.py best.pth photo.jpg --into predictions",
        "python train_bases.py configs/demo/discovery.yaml",
        "scripts/chain.sh configs/demo/discovery.yaml ssul.memory=4",
        "torchrun --nnode=2 --nprocs=2 train_base.py configs/demo/discovery.yaml",
        "python -m utils.launch --standalone train_base.py configs/demo/discovery.yaml epochs=3",
        "bash scripts/none.sh",
        "python -m benchmarks.none",
    ],
)
def test_mistakes_are_found(line, stops):
    with pytest.raises((AssertionError, UserError, SystemExit)):
        understand(Command("", tuple(line.split())), stops)


def launched(words: list[str]) -> list[str]:
    """The script and its arguments, behind options that torchrun knows."""
    options, unknown = get_args_parser().parse_known_args(words)
    assert not unknown, unknown
    return [*(["-m"] if options.module else []), options.training_script, *options.training_script_args]


def python_module(module: str, words: list[str], stops) -> None:
    if module in ("pytest", "ruff"):
        paths = [word for word in words if "/" in word]
        assert all((ROOT / path).exists() for path in paths), paths
        return
    if module.startswith("my_method."):  # a copy of the example
        module, words = (module.replace("my_method", "tests.examples.own_method"), words)
        words = [word.replace("my_method/", "tests/examples/own_method/") for word in words]
    if module == "benchmarks.flops":  # runs a training script
        module, words = words[0].removesuffix(".py"), words[1:]
    if (ROOT / module.replace(".", "/") / "__main__.py").is_file():  # a package
        module = f"{module}.__main__"
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
    if words:
        start(module, words, stops)


def shell_script(path: str, words: list[str]) -> None:
    """It is there; key=value are keys of the configuration that it is given, or takes otherwise."""
    assert (ROOT / path).is_file(), path
    words = [complete(word, "ncdss") for word in words if not word.startswith("output/")]
    pairs, files = [word for word in words if "=" in word], [word for word in words if word.endswith(".yaml")]
    assert all((ROOT / file).is_file() for file in files), files
    taken = files or re.findall(r"configs/\S+?\.yaml", (ROOT / path).read_text())
    if pairs:
        assert any(fits(file, pairs) for file in taken), (taken, pairs)
    elif path.endswith("test.sh"):
        assert all((ROOT / word).exists() for word in words), words


def fits(file: str, pairs: list[str]) -> bool:
    try:
        reader.load_config([file, *pairs], "")
    except UserError:
        return False
    return True


@pytest.mark.parametrize("path", SHELL_SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_shell_script_is_well_formed(path):
    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.parametrize("path", SHELL_SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_shell_script_calls_what_is_there(path):
    """Python files and configurations that it names."""
    text = re.sub(r"^\s*#.*$", "", path.read_text(), flags=re.M)
    named = re.findall(r"(?<![\w/$}{.])((?:configs/[\w/]+\.yaml)|(?:[a-z_]+\.py)|(?:scripts/[\w/]+\.sh))\b", text)
    assert all((ROOT / name).is_file() for name in named), named


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_of_documents(path):
    """Links to files, and files of the tree that the text names."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert all((path.parent / link).exists() for link in links), links
    rooms = "benchmarks|configs|data|docs|losses|models|reports|scripts|tests|utils"
    named = re.findall(rf"`((?:{rooms})/[\w/.]+\.\w+)`", text)
    missing = [name for name in named if not (ROOT / name).exists() and not re.search(r"NAME|supervised", name)]
    assert not missing


def test_the_tree_in_the_readme_names_every_script():
    tree = (ROOT / "README.md").read_text().split("## Where things are")[1]
    missing = [path.name for path in ENTRIES if path.name not in tree]
    assert not missing
