"""Every command in the README, the other documents and the scripts' own help is one that the program takes."""

import argparse
import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from utils.config.reader import load_config
from utils.errors import UserError

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ENTRIES = sorted(path for path in ROOT.glob("*.py") if not path.name.startswith("test_"))
COMMAND = r"(?:[A-Z_]+=\S+ )*(?:python|bash|torchrun|scripts/)[ \w]"
PLACEHOLDER = re.compile(r"(CONFIG|ENTRY|NAME)\b")
EXAMPLES = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "configs" / "demo").glob("*.yaml"))]


def commands_of(text: str) -> list[str]:
    """Commands in code blocks, a line each, and in `inline code`; without comments and optional parts."""
    text = re.sub(r"\\\n *", "", text)
    blocks = [line.strip() for line in text.splitlines() if re.match(r"(    )?" + COMMAND, line)]
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    inline = [" ".join(code.split()) for code in re.findall(rf"`({COMMAND}[^`]*)`", prose)]
    needed = (re.sub(r" +\[[^]]*\]", "", command) for command in (*blocks, *inline))
    plain = (re.split(r" +#|  +(?!--)| \.\.\.", command)[0] for command in needed)
    return list(dict.fromkeys(command for command in plain if re.search(r"\.(py|sh)\b|-m ", command)))


def documented() -> list[tuple[str, str]]:
    found = [(path.name, command) for path in DOCUMENTS for command in commands_of(path.read_text())]
    for path in ENTRIES:
        usage = ast.get_docstring(ast.parse(path.read_text())) or ""
        found += [(path.name, command) for command in commands_of(usage)]
    return list(dict.fromkeys(found))


def script_of(words: list[str]) -> tuple[Path, list[str]]:
    """The file that a command runs and its arguments; a module behind -m counts by its file."""
    for place, word in enumerate(words):
        if word == "-m" and "pytest" not in words:
            return ROOT / (words[place + 1].replace(".", "/") + ".py"), words[place + 2 :]
        if word.endswith((".py", ".sh")):
            return ROOT / word, words[place + 1 :]
    raise AssertionError(f"no script in {words}")


class Accepted(Exception):
    """The arguments were read; nothing is run."""


def load(path: Path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def reads_only(monkeypatch):
    """(script, arguments) -> None, or what is wrong with the arguments; the script stops once it has read them."""
    parse_args = argparse.ArgumentParser.parse_args

    def parsed(self, *args, **options):
        namespace = parse_args(self, *args, **options)
        if not hasattr(namespace, "config"):  # its key=value are read next
            raise Accepted
        return namespace

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)

    def check(path: Path, arguments: list[str]) -> str | None:
        module = load(path)
        if hasattr(module, "load_config"):
            original = getattr(module.load_config, "original", module.load_config)

            def loaded(*args, **options):
                original(*args, **options)
                raise Accepted

            loaded.original = original
            monkeypatch.setattr(module, "load_config", loaded)
        try:
            module.main(arguments)
        except Accepted:
            return None
        except (UserError, SystemExit) as error:
            return str(error)
        return "took no notice of its arguments"

    return check


def test_there_are_commands_to_check():
    assert len(documented()) > 60
    assert {name for name, _ in documented()} >= {"README.md", "ncdss.md", "own_method.md", "train_base.py"}


@pytest.mark.parametrize(("where", "command"), documented())
def test_a_documented_command_is_accepted(where, command, reads_only, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    words = [word for word in shlex.split(command) if "<" not in word]
    if PLACEHOLDER.match(script_of(words)[0].stem):
        return
    path, arguments = script_of(words)
    assert path.is_file(), f"{where}: {command}: there is no {path.relative_to(ROOT)}"
    if path.suffix == ".sh" and any(re.match(r"[a-z]\S*\.yaml$", word) for word in arguments):
        load_config(arguments, "")
    if path.suffix == ".sh" or path.is_relative_to(ROOT / "tests"):
        return
    if any(PLACEHOLDER.match(word) for word in arguments):
        tries = [[example if PLACEHOLDER.match(word) else word for word in arguments] for example in EXAMPLES]
    else:
        tries = [arguments]
    problems = [reads_only(path, one) for one in tries]
    assert None in problems, f"{where}: {command}: {problems[0]}"


def test_shell_scripts_are_well_formed():
    scripts = sorted((ROOT / "scripts").rglob("*.sh"))
    assert len(scripts) > 20
    for path in scripts:
        found = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
        assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{path.name}: there is no {target}"


def test_the_tree_in_the_readme_names_every_entry_script():
    tree = (ROOT / "README.md").read_text().split("## Where things are")[1]
    for path in ENTRIES:
        assert path.name in tree, f"README, Where things are: {path.name} is missing"


def test_the_citation_file_is_valid():
    """The required keys of the Citation File Format 1.2.0, for the project and each paper."""
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cff["cff-version"] == "1.2.0" and cff["message"] and cff["license"] == "Apache-2.0"
    for work in (cff, *cff["references"]):
        assert work["title"] and work["type"] in ("software", "conference-paper")
        assert all("name" in author or author["family-names"] for author in work["authors"])
    assert [work["year"] for work in cff["references"]] == [2022, 2021, 2020, 2021, 2021, 2019, 2022]
