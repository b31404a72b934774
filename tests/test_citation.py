"""CITATION.cff by what the Citation File Format 1.2.0 asks for."""

from pathlib import Path

import yaml

PATH = Path(__file__).parents[1] / "CITATION.cff"
ENTRY = {"type", "title", "authors", "year", "notes", "collection-title"}  # of the keys that a reference may have


def test_the_file_is_valid():
    tree = yaml.safe_load(PATH.read_text(encoding="utf-8"))
    assert tree["cff-version"] == "1.2.0" and tree["type"] == "software" and tree["license"] == "Apache-2.0"
    assert all(isinstance(tree[key], str) and tree[key] for key in ("message", "title", "abstract"))
    assert tree["authors"] and all(author["name"] for author in tree["authors"])
    papers = tree["references"]
    for paper in papers:
        assert paper.keys() == ENTRY and paper["type"] == "conference-paper" and isinstance(paper["year"], int)
        assert all(person.keys() == {"given-names", "family-names"} for person in paper["authors"])
    assert len({paper["title"] for paper in papers}) == len(papers) == 8


def test_every_paper_is_where_the_readme_says():
    papers = {paper["notes"]: paper for paper in yaml.safe_load(PATH.read_text(encoding="utf-8"))["references"]}
    published = {name: f"{_venue(paper)} {paper['year']}" for name, paper in papers.items()}
    assert published == {
        "NCDSS, EUMS": "CVPR 2022",
        "SSUL, SSUL-M": "NeurIPS 2021",
        "MiB": "CVPR 2020",
        "PLOP": "CVPR 2021",
        "MaskContrast": "ICCV 2021",
        "ZS3Net, ZS5Net": "NeurIPS 2019",
        "MaskFormer": "NeurIPS 2021",
        "SimFormer": "NeurIPS 2022",
    }


def _venue(paper: dict) -> str:
    return paper["collection-title"].split("(")[-1].rstrip(")")
