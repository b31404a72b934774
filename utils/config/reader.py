"""Read a run's configuration: defaults < `base:` file < file < key=value, validated against utils/schema.py."""

import difflib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from utils.config.common import Common, Config
from utils.errors import UserError

C = TypeVar("C", bound=Common)
Schemas = Mapping[str, type[Common]]


class StrictLoader(yaml.SafeLoader):
    """YAML without its traps: 1e-4 is a number; 010, 1:30, no and on are what they look like; no repeated keys."""

    yaml_implicit_resolvers = {}  # noqa: RUF012

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
    """Parse one YAML file; UserError names the file and line."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), StrictLoader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None


def load_config(
    argv: list[str] | None, usage: str, schema: type[C] = Config, others: Schemas = MappingProxyType({})
) -> C:
    """Configuration of one command `ENTRY.py CONFIG.yaml [key=value ...]`, by the schema of its system.

    An entry script of several systems gives `others`: the schema to take instead when the configuration has this key.

    `--help` prints `usage` and every key, `--print-config` the merged tree with the origin of each value; both exit.
    Raises UserError for an unknown key (with a suggestion), a wrong type or a value out of range.
    """
    arguments = sys.argv[1:] if argv is None else [str(a) for a in argv]
    if {"-h", "--help"} & set(arguments):
        print(f"{usage.strip()}\n\nkeys (key=value overrides the file):\n{describe(schema)}")
        raise SystemExit(0)
    show = "--print-config" in arguments
    positional = [a for a in arguments if a != "--print-config"]
    files = [a for a in positional if "=" not in a]
    unknown = [a for a in files if a.startswith("-")]
    if unknown:
        raise UserError(
            f"{unknown[0]}: unknown option; options are --help and --print-config, everything else is key=value"
        )
    if len(files) != 1:
        raise UserError(f"expected one CONFIG.yaml, got {len(files)}: {' '.join(files) or 'none'}; see --help")
    overrides = [("command line", _override(a)) for a in positional if "=" in a]
    layers = [*_file_layers(Path(files[0])), *overrides]
    tree: dict = {}
    origin: dict[str, str] = {}
    for source, values in layers:
        _merge(tree, values, origin, source)
    schema = next((other for key, other in others.items() if key in tree), schema)
    config = validate(tree, files[0], schema)
    if show:
        print(_tree_with_origins(config.model_dump(mode="json"), origin))
        raise SystemExit(0)
    return config


def validate(tree: dict, where: str, schema: type[C] = Config) -> C:
    """The typed configuration; the first mistake becomes one line."""
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{where}: {_first_mistake(error, schema)}") from None


def _file_layers(path: Path) -> list[tuple[str, dict]]:
    own = _mapping(path)
    parent = own.pop("base", None)
    if parent is None:
        return [(str(path), own)]
    parent_path = path.parent / str(parent)
    below = _mapping(parent_path)
    if "base" in below:
        raise UserError(f"{parent_path}: key 'base' is not allowed here, because {path} already extends this file")
    return [(str(parent_path), below), (str(path), own)]


def _mapping(path: Path) -> dict:
    tree = read_yaml(path)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected key: value lines, got {type(tree).__name__}")
    return tree


def _override(pair: str) -> dict:
    """'a.b=1' -> {'a': {'b': 1}}."""
    key, _, text = pair.partition("=")
    try:
        value = yaml.load(text, StrictLoader)
    except yaml.YAMLError:
        raise UserError(f"{key}: cannot read the value {text!r}; quote it as YAML") from None
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _merge(tree: dict, values: dict, origin: dict[str, str], source: str, prefix: str = "") -> None:
    """Mappings merge key by key; everything else, lists too, replaces what was there."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and isinstance(tree.get(key, {}), dict) and name != "expected":
            _merge(tree.setdefault(key, {}), value, origin, source, f"{name}.")
        else:
            tree[key] = value
            origin[name] = source


def _first_mistake(error: ValidationError, schema: type[BaseModel]) -> str:
    mistake = error.errors()[0]
    key = ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] == "extra_forbidden":
        names = all_keys(schema)
        close = difflib.get_close_matches(key, names, n=1, cutoff=0.5) or [
            name for name in names if name.split(".")[-1] == key.split(".")[-1]
        ]
        return f"unknown key '{key}'" + (f"; did you mean '{close[0]}'?" if close else "; see --help for all keys")
    return f"{key}: {mistake['msg'][0].lower()}{mistake['msg'][1:]}, got {mistake['input']!r}"


def _sections(schema: type[BaseModel]) -> dict[str, type[BaseModel]]:
    fields = schema.model_fields.items()
    return {
        k: f.annotation for k, f in fields if isinstance(f.annotation, type) and issubclass(f.annotation, BaseModel)
    }


def all_keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of every key of a schema."""
    sections, names = _sections(schema), []
    for key in schema.model_fields:
        names += all_keys(sections[key], f"{prefix}{key}.") if key in sections else [f"{prefix}{key}"]
    return names


def describe(schema: type[BaseModel], prefix: str = "") -> str:
    """One help line per key: name, default, meaning."""
    sections, lines = _sections(schema), []
    for key, field in schema.model_fields.items():
        if key in sections:
            lines.append(describe(sections[key], f"{prefix}{key}."))
        else:
            lines.append(f"  {prefix + key:34} {field.description} [{field.default}]")
    return "\n".join(lines)


def flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _tree_with_origins(tree: dict, origin: dict[str, str]) -> str:
    return "\n".join(f"{k}: {v!r}  # {origin.get(k, 'default')}" for k, v in flatten(tree).items())


def dump(config: Common, path: Path) -> str:
    """YAML text of the effective configuration, which reproduces the run by itself."""
    header = f"# effective configuration written to {path.name}\n"
    return header + yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
