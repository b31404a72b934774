"""Reads the configuration of a run: defaults < `base:` file < file < key=value, validated by the system's schema."""

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from utils.config.common import Common
from utils.config.keys import all_keys, describe, flatten, misplaced, unreached
from utils.config.strict_yaml import StrictLoader, read_mapping
from utils.errors import UserError
from utils.log import log
from utils.systems import SYSTEMS, schema_of

C = TypeVar("C", bound=Common)
COMMAND_LINE = "command line"
EFFECTIVE = "# effective configuration"


def load_config(argv: list[str] | None, usage: str, script: str = "", systems: Sequence[str] = ()) -> Any:
    """The validated configuration of a command `ENTRY.py CONFIG.yaml [key=value ...]`.

    `script` is the file of the entry script, `systems` are those it runs (default: all). `--help` prints `usage` and
    the keys, `--print-config` prints the merged values and their origin; both exit. Raises UserError for an unknown key
    (with a suggestion), a wrong type, a value out of range, and a key=value that the script would ignore.
    """
    arguments = sys.argv[1:] if argv is None else [str(a) for a in argv]
    positional = [a for a in arguments if a not in ("-h", "--help", "--print-config")]
    files = [a for a in positional if "=" not in a]
    unknown = [a for a in files if a.startswith("-")]
    if unknown:
        raise UserError(
            f"{unknown[0]}: unknown option; options are --help and --print-config, everything else is key=value"
        )
    systems = tuple(systems) or tuple(SYSTEMS)
    if {"-h", "--help"} & set(arguments):
        print(f"{usage.strip()}\n\n{_help(files, systems)}")
        raise SystemExit(0)
    if len(files) != 1:
        raise UserError(f"expected one CONFIG.yaml, got {len(files)}: {' '.join(files) or 'none'}; see --help")
    overrides = [(COMMAND_LINE, _override(a)) for a in positional if "=" in a]
    tree: dict = {}
    origin: dict[str, str] = {}
    for source, values in [*_file_layers(Path(files[0])), *overrides]:
        _merge(tree, values, origin, source)
    script = Path(script).name
    config = validate(tree, files[0], schema_of(find_system(tree, files[0], script, systems)))
    _require_reached(config, origin, files[0])
    if "--print-config" in arguments:
        print(_tree_with_origins(config.model_dump(mode="json"), origin))
        raise SystemExit(0)
    problem = misplaced(config, script, {key for key, source in origin.items() if source == COMMAND_LINE})
    if script and problem:
        raise UserError(problem)
    return config


def _require_reached(config: Common, origin: dict[str, str], file: str) -> None:
    """Raises UserError for epochs or steps beyond the end of training.

    Warns instead if a later source shortened the training: `epochs=1` on the command line leaves the milestones of the
    file beyond the end.
    """
    rank = {file: 1, COMMAND_LINE: 2}  # 0: the file that it extends
    for key, why in unreached(config).items():
        if key not in origin or is_effective(Path(file)):
            continue
        section = key.removesuffix(key.split(".")[-1])
        lengths = [origin.get(section + name) for name in ("epochs", "first_epochs", "iters_per_epoch")]
        if all(rank.get(origin[key], 0) >= rank.get(source, 0) for source in lengths if source):
            raise UserError(f"{key}: {why}; give values within the training")
        log.warning("%s: %s", key, why)


def is_effective(path: Path) -> bool:
    """Whether a run wrote the file as its effective configuration."""
    with path.open("rb") as file:
        return file.read(len(EFFECTIVE)) == EFFECTIVE.encode()


def find_system(tree: dict, where: str, script: str = "", systems: Sequence[str] = ()) -> str:
    """The system of a configuration. Raises UserError unless it is one of `systems` (default: all).

    The key may be missing if only one system is allowed.
    """
    systems = tuple(systems) or tuple(SYSTEMS)
    name = tree.get("system") or (systems[0] if len(systems) == 1 else None)
    if name is None:
        raise UserError(f"{where}: no key 'system'; add one of {', '.join(systems)}")
    if name not in SYSTEMS:
        close = difflib.get_close_matches(str(name), SYSTEMS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"the systems are {', '.join(SYSTEMS)}"
        raise UserError(f"{where}: system: {name} is unknown; {hint}")
    if name not in systems:
        raise UserError(f"{where}: is of system: {name}; {script or 'this script'} runs {' and '.join(systems)}")
    return name


def validate(tree: dict, where: str, schema: type[C]) -> C:
    """The typed configuration. Raises UserError with one line for the first mistake."""
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{where}: {_first_mistake(error, schema)}") from None


def dump(config: Common, path: Path) -> str:
    """YAML text of the effective configuration; it reproduces the run without other files."""
    header = f"{EFFECTIVE} written to {path.name}\n"
    return header + yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _help(files: list[str], systems: Sequence[str]) -> str:
    """Keys of the system of the file or script; common keys and a list of systems if there are several."""
    if files:
        tree: dict = {}
        for _, values in _file_layers(Path(files[0])):
            tree |= values
        systems = (find_system(tree, files[0], systems=systems),)
    if len(systems) == 1:
        name = systems[0]
        return f"keys of system {name} (key=value overrides the file):\n{describe(schema_of(name))}"
    listed = "\n".join(f"  {name:34} {SYSTEMS[name].title}" for name in systems)
    return f"systems (CONFIG.yaml --help lists the keys of its system):\n{listed}\n\ncommon keys:\n{describe(Common)}"


def _file_layers(path: Path) -> list[tuple[str, dict]]:
    own = read_mapping(path)
    parent = own.pop("base", None)
    if parent is None:
        return [(str(path), own)]
    parent_path = path.parent / Path(str(parent)).expanduser()
    if parent_path.resolve() == path.resolve():
        raise UserError(f"{path}: base: {parent} is this file itself; name another one")
    below = read_mapping(parent_path)
    if "base" in below:
        raise UserError(f"{parent_path}: key 'base' is not allowed here, because {path} already extends this file")
    return [(str(parent_path), below), (str(path), own)]


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
    """Merges mappings key by key; any other value, including a list, replaces the earlier one."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and isinstance(tree.get(key, {}), dict) and name != "expected":
            _merge(tree.setdefault(key, {}), value, origin, source, f"{name}.")
        else:
            tree[key] = value
            origin[name] = source


def _first_mistake(error: ValidationError, schema: type[Common]) -> str:
    mistake = error.errors()[0]
    key = ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] == "keys":
        return f"{key}: {mistake['msg']}" if key else mistake["msg"]
    if mistake["type"] != "extra_forbidden":
        return f"{key}: {mistake['msg'][0].lower()}{mistake['msg'][1:]}, got {mistake['input']!r}"
    names, given = all_keys(schema), mistake["input"]
    elsewhere = [name for name in SYSTEMS if any(f"{k}.".startswith(f"{key}.") for k in all_keys(schema_of(name)))]
    if elsewhere:
        own = next(name for name in SYSTEMS if issubclass(schema, schema_of(name)))
        return f"key '{key}' means nothing to system {own}; it is one of {' and '.join(elsewhere)}"
    if isinstance(given, dict) and given:  # a misspelt section: its keys show which one is meant
        key = f"{key}.{next(iter(flatten(given)))}"
    same_end = [name for name in names if name.split(".")[-1] == key.split(".")[-1]]
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.5) or same_end
    return f"unknown key '{key}'" + (f"; did you mean '{close[0]}'?" if close else "; see --help for all keys")


def _tree_with_origins(tree: dict, origin: dict[str, str]) -> str:
    return "\n".join(f"{k}: {v!r}  # {origin.get(k, 'default')}" for k, v in flatten(tree).items())
