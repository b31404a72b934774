"""Pages of docs/: all are linked, links have targets, lines are short, and a measured figure has one place."""

import re
from collections import Counter
from pathlib import Path

import pytest

from utils.config.keys import flatten
from utils.systems import SYSTEMS, schema_of

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")
SPREAD = re.compile(r"\d ± \d")  # a measured mean with its deviation


def links(page: Path) -> list[tuple[Path, str]]:
    """Page and anchor of every link to a Markdown file, or to a heading of the same page."""
    found = [(path, anchor) for path, anchor in LINK.findall(page.read_text()) if "://" not in path]
    return [((page.parent / path).resolve() if path else page, anchor) for path, anchor in found]


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(page: Path) -> list[str]:
    """Table rows with at least two figures, in one spelling."""
    lines = [re.sub(r"\s+", " ", line.strip()) for line in page.read_text().splitlines() if line.startswith("|")]
    return [line for line in lines if len(re.findall(r"\d+\.\d", line)) >= 2]


def test_every_page_can_be_reached_from_the_index():
    reached, waiting = set(), [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting += [target for target, _ in links(page) if target.suffix == ".md"]
    assert not {page.name for page in (*PAGES, *TOP) if page not in reached}


def test_the_index_links_every_page_itself():
    assert not {page.name for page in PAGES} - {path.name for path, _ in links(DOCS / "index.md")} - {"index.md"}


@pytest.mark.parametrize("page", [*PAGES, *TOP], ids=lambda page: page.name)
def test_anchors_of_links_are_headings(page):
    wrong = [(target.name, anchor) for target, anchor in links(page) if anchor and anchor not in anchors(target)]
    assert not wrong


@pytest.mark.parametrize("page", [*PAGES, *TOP], ids=lambda page: page.name)
def test_lines_are_short(page):
    assert not [number for number, line in enumerate(page.read_text().splitlines(), 1) if len(line) > 200]


def test_no_row_of_figures_stands_twice():
    counted = Counter(row for page in (*PAGES, *TOP) for row in rows(page))
    assert not [row for row, count in counted.items() if count > 1]


def test_measured_means_stand_in_the_results():
    """The README quotes one table of them."""
    others = [page for page in (*PAGES, *TOP) if page.name not in ("results.md", "README.md")]
    assert not [page.name for page in others if SPREAD.search(page.read_text())]
    tables = re.findall(r"(?:^\|.*\n)+", (ROOT / "README.md").read_text(), re.M)
    assert sum(bool(SPREAD.search(text)) for text in tables) == 1


def test_the_readme_is_short_and_names_the_settings_first():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) < 150
    first = "\n".join(lines[:20])
    assert all(f"docs/{name}.md" in first for name in ("discovery", "incremental", "contrast", "zeroshot", "weakshot"))
    assert any("pip install -r requirements.txt" in line for line in lines)


def test_keys_that_pages_name_exist():
    """Of `section.key` in code, where a schema has that section."""
    known = {key for name in SYSTEMS for key in flatten(schema_of(name)().model_dump())}
    sections = {key.split(".")[0] for key in known if "." in key} - {"own"}
    for page in (*PAGES, *TOP):
        code = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        named = set(re.findall(r"(?<![\w./])([a-z_0-9]+\.[a-z_]+)=", code)) | set(
            re.findall(r"`([a-z_0-9]+\.[a-z_]+)`", code)
        )
        wrong = {key for key in named if key.split(".")[0] in sections} - known
        assert not {key for key in wrong if not key.endswith((".json", ".pth", ".txt", ".py"))}, page.name
