"""Writes docs/keys.md: every configuration key of every system, from the schemas.

python -m utils.config.reference > docs/keys.md
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from utils.config.common import Common, Decides, Only, Training
from utils.config.keys import Mark, walk
from utils.systems import SYSTEMS, schema_of

WIDTH = 140
Row = tuple[str, Any, str, Sequence[Mark]]  # key, default, meaning, marks
HEAD = """# Configuration keys

Generated from the schemas in `utils/config/` by `python -m utils.config.reference > docs/keys.md`.

Set a key in a YAML file, or on the command line as `key=value`. `python ENTRY.py CONFIG.yaml --print-config` shows the
value of every key and where it comes from.

- *neutral*: the key changes no result. A finished stage stays finished.
- *all stages*: a changed value makes every stage of a chain stale.
- all other keys: a changed value makes the stages stale that read the key's section.
"""


def page() -> str:
    """The whole page in Markdown."""
    return "\n".join([HEAD, *_common(), *_training(), *(line for name in SYSTEMS for line in _system(name))]) + "\n"


def _common() -> Iterator[str]:
    yield "## Every system\n"
    yield from _list((key, field.default, field.description or "", marks) for key, field, marks in walk(Common))


def _training() -> Iterator[str]:
    yield "\n## Training sections\n"
    yield "Every section with a learning rate has these keys; a system lists those to which it gives another default.\n"
    yield from _list((key, field.default, field.description or "", marks) for key, field, marks in walk(Training))


def _system(name: str) -> Iterator[str]:
    system, schema = SYSTEMS[name], schema_of(name)
    yield f"\n## {system.setting}: `system: {name}`\n"
    yield f"{system.title[0].upper()}{system.title[1:]}. Page: [{system.setting}.md]({system.setting}.md).\n"
    sections = [key for key, kind in _sections(schema) if issubclass(kind, Training)]
    yield f"Training sections: {', '.join(f'`{key}`' for key in sections)}.\n" if sections else ""
    known = {key: field for key, field, _ in walk(Common)}
    known |= {f"{section}.{key}": field for section in sections for key, field, _ in walk(Training)}
    yield from _list(
        (key, field.default, "" if key in known and same(field, known[key]) else field.description or "", marks)
        for key, field, marks in walk(schema)
        if key != "system" and not (key in known and same(field, known[key]) and field.default == known[key].default)
    )


def same(field: FieldInfo, other: FieldInfo) -> bool:
    """Whether both mean the same; their defaults may differ."""
    return field.description == other.description


def _sections(schema: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in schema.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation


def _list(rows: Iterable[Row]) -> Iterator[str]:
    """One item per key, in lines of at most WIDTH characters."""
    for key, default, meaning, marks in rows:
        notes = f" ({'; '.join(notes)})" if (notes := _notes(marks)) else ""
        text = f"- `{key}` ({_shown(default)}){': ' if meaning else ''}{meaning.replace('<', '&lt;')}{notes}"
        yield textwrap.fill(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _shown(default: Any) -> str:
    """A default as it is written in YAML."""
    if default is None or default == {}:
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{default}`" if str(default) else "none"


def _notes(marks: Sequence[Mark]) -> list[str]:
    """The meaning of the marks of a key, most important first."""
    decides: set[str] = {mark.what for mark in marks if isinstance(mark, Decides)}
    notes = ["*neutral*"] if "nothing" in decides else ["*all stages*"] if "every stage" in decides else sorted(decides)
    for mark in (mark for mark in marks if isinstance(mark, Only)):
        where = [f"`{script}`" for script in mark.scripts] or [f"`{mark.key}={value}`" for value in mark.values]
        notes.append(f"only with {' or '.join(where)}")
    return notes


if __name__ == "__main__":
    print(page(), end="")
