"""The keys of a schema: dotted names, help lines, and the marks of each key (Decides, Only, Before)."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from utils.config.common import Before, Common, Decides, Only

Mark = Decides | Only | Before


def walk(
    schema: type[BaseModel], prefix: str = "", marks: tuple[Mark, ...] = ()
) -> Iterator[tuple[str, FieldInfo, tuple[Mark, ...]]]:
    """(dotted name, field, marks) of every key. Marks of a section apply to its keys."""
    for name, field in schema.model_fields.items():
        own = (*marks, *(mark for mark in field.metadata if isinstance(mark, (Decides, Only, Before))))
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from walk(field.annotation, f"{prefix}{name}.", own)
        else:
            yield prefix + name, field, own


def all_keys(schema: type[BaseModel]) -> list[str]:
    """Dotted names of every key of a schema."""
    return [key for key, _, _ in walk(schema)]


def describe(schema: type[BaseModel]) -> str:
    """One help line per key: name, meaning, default."""
    return "\n".join(f"  {key:34} {field.description} [{_shown(field)}]" for key, field, _ in walk(schema))


def _shown(field: FieldInfo) -> Any:
    return "none" if field.default == {} else field.default


def flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if value and isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def deciding(cfg: Common) -> dict[str, Any]:
    """Values by dotted name of all keys that can change a result."""
    nothing = [key for key, _, marks in walk(type(cfg)) if Decides("nothing") in marks]
    return {key: value for key, value in flatten(cfg.model_dump(mode="json")).items() if key not in nothing}


def first_difference(
    now: Common, before: dict[str, Any], reads: tuple[str, ...], without: frozenset[str] = frozenset()
) -> str | None:
    """One line on the first key that makes a stage stale: one whose value differs from that in the tree `before`.

    A key counts if it begins with one of `reads` or is marked "every stage", unless it is marked "nothing" or with one
    of `without`. Keys missing in `before` had the schema's default.
    """
    marks = {key: {mark.what for mark in found if isinstance(mark, Decides)} for key, _, found in walk(type(now))}
    old, new = _as_read(type(now), before), flatten(now.model_dump(mode="json"))
    for key in sorted(key for key in old.keys() | new.keys() if {} not in (old.get(key), new.get(key))):  # `own: {}`
        decided = next((marks[name] for name in (key, key.split(".")[0]) if name in marks), set())
        listed = any(f"{key}.".startswith(f"{name}.") for name in reads)
        stale = (listed or "every stage" in decided) and decided.isdisjoint({"nothing", *without})
        if stale and old.get(key) != new.get(key):
            return f"{key}: {old.get(key)} there, {new.get(key)} now"
    return None


def _as_read(schema: type[Common], tree: dict[str, Any]) -> dict[str, Any]:
    """A saved configuration by dotted names, by the current schema; merged into the defaults if it is invalid."""
    try:
        return flatten(schema.model_validate(tree).model_dump(mode="json"))
    except ValidationError:
        return flatten(schema().model_dump(mode="json")) | flatten(tree)


def misplaced(config: Common, script: str, given: set[str]) -> str | None:
    """Why this script would ignore one of the `given` keys; None if it reads all of them."""
    values, defaults = flatten(config.model_dump(mode="json")), flatten(type(config)().model_dump(mode="json"))
    for key, _, marks in walk(type(config)):
        if key not in given or values.get(key) == defaults.get(key):
            continue
        for mark in (mark for mark in marks if isinstance(mark, Only)):
            if mark.scripts and script not in mark.scripts:
                return f"{key}: read by {' and '.join(mark.scripts)}; {script} would ignore it"
            if mark.key and mark.where in ("", script) and values[mark.key] not in mark.values:
                wanted = " or ".join(f"{mark.key}={value}" for value in mark.values)
                return f"{key}: for {wanted}; ignored with {mark.key}={values[mark.key]}, so leave it out"
    return None


def unreached(config: Common) -> dict[str, str]:
    """Keys that name an epoch or step beyond the end of training, with the reason."""
    values, found = flatten(config.model_dump(mode="json")), {}
    for key, _, marks in walk(type(config)):
        section = key.removesuffix(key.split(".")[-1])
        for mark in (mark for mark in marks if isinstance(mark, Before)):
            last = max(values.get(section + name) or 0 for name in mark.keys)
            late = [epoch for epoch in values[key] if epoch >= last]
            if late:
                found[key] = f"epoch {late[0]} never comes with {section}{mark.keys[0]}={last}"
    steps = {key.removesuffix("eval_steps") for key in values if key.split(".")[-1] == "eval_steps" and values[key]}
    for section in steps:
        total = values[f"{section}epochs"] * (values[f"{section}iters_per_epoch"] or 0)
        if total and values[f"{section}eval_steps"] > total:
            found[f"{section}eval_steps"] = f"never comes in {total} steps ({section}epochs, {section}iters_per_epoch)"
    return found
