"""The parts of report.html, a single file without links. Texts are escaped here; `body` is HTML."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from utils.report.pictures import data_uri

STYLE = """
:root { --ink: #1f2933; --muted: #5f6c7b; --line: #e4e8ed; --novel: #6d43b0; --tint: #f1ebfa; --best: #2457c5 }
* { box-sizing: border-box }
body { margin: 0; background: #f4f6f8; color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif }
main { max-width: 1240px; margin: 0 auto; padding: 32px 24px 56px }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -.01em }
h2 { font-size: 19px; margin: 0 0 2px }
h3 { font-size: 13px; margin: 0 0 6px; font-weight: 600 }
p { margin: 0 0 10px; max-width: 100ch }
.lead, .intro, .note { color: var(--muted) }
.note { font-size: 13px; margin: 12px 0 0 }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 20px 24px 22px;
  margin-top: 18px }
section.absent { padding-bottom: 12px }
svg { display: block; max-width: 100%; height: auto; font-family: inherit }
img { display: block; width: 100%; border-radius: 3px }
img.file { width: auto; max-width: 100% }
code { font-size: 13px; background: #eef1f4; padding: 1px 5px; border-radius: 4px }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { padding: 6px 4px 6px 22px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
td:first-child, th:first-child { text-align: left; padding-left: 0 }
th { font-weight: 600; color: var(--muted); font-size: 13px }
tr.best td { font-weight: 650; color: var(--best) }
tr.reference td { color: var(--muted) }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 18px }
.tiles div { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 12px 18px; flex: 1 1 150px }
.tiles b { display: block; font-size: 26px; line-height: 1.2; font-variant-numeric: tabular-nums }
.tiles span { color: var(--muted); font-size: 13px }
.chip { display: inline-block; background: var(--tint); color: var(--novel); border-radius: 20px; padding: 0 10px;
  margin-left: 4px; font-size: 13px }
.legend { margin: 0 0 6px; font-size: 13px }
.legend span { margin-right: 18px }
.legend i, .clusters i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px }
.side { display: flex; flex-wrap: wrap; gap: 14px 32px; align-items: flex-start; margin-bottom: 14px }
.side > div { flex: 0 1 auto; min-width: 0 }
.gallery { display: grid; gap: 6px; align-items: center; margin-top: 10px }
.gallery b { font-size: 13px; font-weight: 600; text-align: right; padding-right: 8px; line-height: 1.25 }
.gallery small { color: var(--muted); font-size: 11.5px; text-align: center; line-height: 1.3; overflow-wrap: anywhere }
.clusters { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(540px, 100%), 1fr)); gap: 16px 32px }
.clusters h3 span { color: var(--muted); font-weight: 400 }
.crops { display: grid; grid-template-columns: repeat(10, 1fr); gap: 4px; width: 550px; max-width: 100% }
.side .note { max-width: 550px }
.crops + h3 { margin-top: 16px }
.crops img { border: 2px solid var(--line) }
.crops img.wrong { border-color: #e2711d }
details { margin-top: 14px }
summary { cursor: pointer; font-weight: 600; font-size: 13px; margin-bottom: 8px }
@media (max-width: 640px) { main { padding: 16px 8px } section { padding: 14px 12px; overflow-x: auto }
  td, th { padding-left: 10px; font-size: 13px; white-space: normal } }
"""


def page(title: str, lead: str, body: Sequence[str]) -> str:
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    heading = f'<h1>{escape(title)}</h1><p class="lead">{lead}</p>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{escape(title)}</title><style>{STYLE}</style></head>\n'
        f"<body><main>{heading}\n{chr(10).join(body)}\n</main></body></html>\n"
    )


def section(title: str, intro: str, body: str) -> str:
    return f'<section><h2>{escape(title)}</h2><p class="intro">{escape(intro)}</p>{body}</section>'


def drawing(path: Path) -> str:
    """The content of an SVG file."""
    return path.read_text(encoding="utf-8")


def absent(title: str, what: str, command: str) -> str:
    """A section with nothing to show yet, and the command that makes it."""
    text = f'<p class="intro">{escape(what)}: <code>{escape(command)}</code></p>'
    return f'<section class="absent"><h2>{escape(title)}</h2>{text}</section>'


def note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def tiles(items: Sequence[tuple[str, str]]) -> str:
    """(number, what it is) as tiles side by side."""
    boxes = (f"<div><b>{escape(number)}</b><span>{escape(what)}</span></div>" for number, what in items)
    return f'<div class="tiles">{"".join(boxes)}</div>'


def table(header: Sequence[str], rows: Sequence[tuple[Sequence[str], str]]) -> str:
    """Rows of texts, each with a CSS class ("best", "reference" or "")."""
    head = "".join(f"<th>{escape(text)}</th>" for text in header)
    lines = [f"<tr>{head}</tr>"]
    for texts, style in rows:
        cells = "".join(f"<td>{escape(text)}</td>" for text in texts)
        lines.append(f'<tr class="{style}">{cells}</tr>')
    return f"<table>{''.join(lines)}</table>"


def side_by_side(parts: Sequence[tuple[str, str]]) -> str:
    """(heading, HTML) next to each other, as far as the window is wide enough."""
    return f'<div class="side">{"".join(f"<div><h3>{escape(title)}</h3>{body}</div>" for title, body in parts)}</div>'


def gallery(columns: Sequence[Sequence[np.ndarray]], row_names: Sequence[str], captions: Sequence[str]) -> str:
    """Pictures in a grid: a column per image, a named row per kind, captions below."""
    cells = []
    for row, name in enumerate(row_names):
        cells.append(f"<b>{escape(name)}</b>")
        cells += [image(column[row]) for column in columns]
    cells += ["<b></b>", *(f"<small>{escape(text)}</small>" for text in captions)]
    style = f"grid-template-columns: 84px repeat({len(columns)}, minmax(0, 1fr))"
    return f'<div class="gallery" style="{style}">{"".join(cells)}</div>'


def image(picture: np.ndarray, style: str = "", title: str = "") -> str:
    extra = (f' class="{style}"' if style else "") + (f' title="{escape(title)}"' if title else "")
    return f'<img src="{data_uri(picture)}" alt=""{extra}>'


def picture_file(path: Path) -> str:
    """A JPEG or PNG file, at most at its own width."""
    kind = "png" if path.suffix == ".png" else "jpeg"
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img class="file" src="data:image/{kind};base64,{data}" alt="">'


def chips(text: str, names: Sequence[str]) -> str:
    """A line of text, then names on tags."""
    tags = (f'<span class="chip">{escape(name)}</span>' for name in names)
    return f"{escape(text)} {''.join(tags)}"


def crops(title: str, text: str, images: Sequence[str], color: str | None = None) -> str:
    """A heading above a row of up to ten small pictures."""
    mark = f'<i style="background:{color}"></i>' if color else ""
    heading = f"<h3>{mark}{escape(title)} <span>{escape(text)}</span></h3>"
    return f'{heading}<div class="crops">{"".join(images)}</div>'


def clusters(items: Sequence[str]) -> str:
    return f'<div class="clusters">{"".join(f"<div>{item}</div>" for item in items)}</div>'


def disclosure(summary: str, body: str, shown: bool = False) -> str:
    """A body that a click unfolds; `shown`: unfolded from the start."""
    return f"<details{' open' if shown else ''}><summary>{escape(summary)}</summary>{body}</details>"
