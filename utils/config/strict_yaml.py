"""YAML without surprising types or repeated keys; mistakes are one-line errors."""

import re
from pathlib import Path
from typing import Any

import yaml

from utils.errors import UserError
from utils.text import read_text


class StrictLoader(yaml.SafeLoader):
    """1e-4 is a number; 010, 1:30, no and on are strings; a repeated key is an error."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                line = node.start_mark.line + 1
                raise yaml.YAMLError(f"key '{key}' appears twice, in or below line {line}; keep one")
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("bool", r"true|True|false|False", "tTfF"),
    ("null", r"~|null|Null|", "~nN\0"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.inf|\.nan",
        "-+0123456789.",
    ),
):
    StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))
StrictLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^$"), [""])


def read_yaml(path: Path) -> Any:
    """Parses a YAML file. Raises UserError with file and line."""
    text = read_text(path)
    try:
        return yaml.load(text, StrictLoader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # a date of month 13 is a ValueError
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, {} for an empty one. Raises UserError for any other content."""
    tree = read_yaml(path)
    if tree is not None and not isinstance(tree, dict):
        raise UserError(f"{path}: expected key: value lines, got {type(tree).__name__}")
    wrong = next((key for key in tree or {} if not isinstance(key, str)), None)
    if wrong is not None:
        raise UserError(f"{path}: key {wrong!r} is no name; expected key: value lines")
    return tree or {}
