"""The page of a small chain whose files are written here, so that every number it must show is known."""

import contextlib
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import report
from data.discovery.units import Unit
from data.gallery import COLUMNS
from data.io import read_label, voc_palette, write_label
from reports.discovery import chain as discovery_chain
from reports.discovery import clusters as discovery_clusters
from reports.discovery import page as discovery
from tests.conftest import write_tiny
from utils.checkpoint import read_list, write_json, write_list
from utils.config.reader import load_config
from utils.run import guarded

# classes: disc and square are base, bar and dot novel; images t002, t006 ... hold a bar, t003, t007 ... a dot
NOVEL = ["t002", "t003", "t006", "t007", "t010", "t011"]
NOT_CLUSTERED = "The objects are not clustered yet: <code>python cluster_pseudolabel.py"
CLUSTERS = {"t002": 1, "t006": 1, "t003": 1, "t007": 3, "t011": 3, "t010": 2}
ENTROPY = {"t002": 0.1, "t003": 0.4, "t006": 0.2, "t007": 0.15, "t010": 0.3, "t011": None}


def metrics(novel: float, base: float, match: list[list[int]]) -> dict:
    per_class = {"background": 0.9, "disc": base, "square": base, "bar": novel, "dot": None}
    means = {"miou": 0.5, "base_miou": base, "novel_miou": novel, "harmonic_miou": 0.3}
    return {**means, "per_class": per_class, "match": match, "protocol": "image size", "images": 12}


def write_chain(out: Path, voc: Path) -> None:
    """All stages but the two reference runs."""
    truth = {name: read_label(voc / "SegmentationClassAug" / f"{name}.png") for name in read_list(voc / "sets/val.txt")}
    for stage, novel in (("eval_basic", 0.4321), ("eval_eums", 0.5432)):
        write_json(out / stage / "metrics.json", metrics(novel, 0.777, [[0, 0], [1, 0], [2, 1]]))
        np.save(out / stage / "confusion.npy", np.arange(30).reshape(5, 6))
        for name, label in truth.items():
            write_label(out / stage / "predictions" / f"{name}.png", np.where(label == 255, 0, label))
    write_json(out / "eval_base" / "metrics.json", {"miou": 0.8, "base_miou": 0.7654, "per_class": {}, "protocol": ""})
    write_json(out / "pseudo" / "clusters.json", CLUSTERS)
    write_json(out / "pseudo" / "metrics.json", {"purity": 0.8333})
    write_list(out / "pseudo" / "novel.txt", NOVEL)
    for name in NOVEL:
        region = (read_label(voc / "SegmentationClassAug" / f"{name}.png") % 255 > 0).astype(np.uint8)
        write_label(out / "pseudo" / "novel_map" / f"{name}.png", region)
        write_label(out / "pseudo" / "pseudo_labels" / f"{name}.png", region * np.uint8(2 + CLUSTERS[name]))
    write_json(out / "ranking" / "entropy.json", ENTROPY)
    write_list(out / "ranking" / "easy_split.txt", ["t002", "t007", "t006", "t010"])
    write_list(out / "ranking" / "hard_split.txt", ["t003", "t011"])
    write_json(out / "ranking" / "metrics.json", {})
    for stage in ("base", "basic", "eums"):
        write_json(out / stage / "metrics.json", {})
        lines = [{"step": s, "epoch": s, "train": {"base": 1 / s, "loss": 1 / s}, "lr": 0.1} for s in (1, 2, 3)]
        lines.append({"step": 3, "epoch": 3, "val": {"base_miou": 0.6, "novel_miou": 0.3}})
        (out / stage / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def page_of(out) -> str:
    """The page without its pictures."""
    return re.sub(r"base64,[^\"]+", "", (out / "report.html").read_text())


@pytest.fixture(scope="module")
def reported(voc, tmp_path_factory):
    """(configuration, output folder, page without its pictures, terminal) of a report that was made once; read only."""
    folder, terminal = tmp_path_factory.mktemp("report"), io.StringIO()
    config, out = write_tiny(folder, voc), folder / "out" / "two"
    write_chain(out, voc)
    with contextlib.redirect_stdout(terminal):
        assert guarded(report.main, [str(config)]) == 0
    return config, out, page_of(out), terminal.getvalue()


@pytest.fixture
def chain(reported, tmp_path):
    """The same stages and configuration, with an output folder to change."""
    config, out, *_ = reported
    shutil.copytree(out, tmp_path / "two", ignore=shutil.ignore_patterns("report.html", "gallery.png"))
    return load_config([str(config), f"output_dir={tmp_path}"], ""), tmp_path / "two"


def opened(cfg, out: Path) -> discovery_chain.Chain:
    chain = discovery_chain.Chain.open(cfg)
    assert chain.folder == out
    return chain


def test_results_on_the_terminal_in_the_page_and_in_markdown(reported):
    _, out, page, terminal = reported
    rows = {line[:24].strip(): line[24:].split() for line in terminal.splitlines()}
    assert rows["base model"] == ["76.5", "-", "-"]
    assert rows["basic"] == ["77.7", "43.2", "50.0"] and rows["EUMS"] == ["77.7", "54.3", "50.0"]
    assert rows["basic, random labels"] == rows["basic, oracle labels"] == ["-", "-", "-"]
    assert '<tr class="best"><td>EUMS</td><td>77.7</td><td>54.3</td><td>50.0</td></tr>' in page
    assert "<b>83.3</b><span>cluster purity</span>" in page
    assert "Not evaluated yet: basic, random labels; basic, oracle labels." in page
    assert "| EUMS | 77.7 | 54.3 | 50.0 |" in (out / "table.md").read_text()


def test_published_values_have_their_conditions_and_are_left_out_for_own_data(reported, chain, monkeypatch):
    assert "49.81" not in reported[2]
    monkeypatch.setattr(discovery, "is_shipped", lambda dataset: True)
    assert re.search(r"on PASCAL-5i .* 49\.81 .* 59\.09 .* another scale", discovery.headline(opened(*chain)))


def test_page_needs_nothing_else(reported):
    text = (reported[1] / "report.html").read_text()
    assert "<script" not in text and "<link" not in text
    assert set(re.findall(r'(?:src|href)="(.{10})', text)) == {"data:image"}
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")


def test_clusters_and_what_is_wrong_in_them(reported):
    """Cluster 1 holds two bars and a dot; the dot is framed there, and nothing else anywhere."""
    page = reported[2]
    heads = re.findall(r"Cluster (\d) <span>([^<]*)</span>", page)
    assert heads == [("1", "3 objects, 67 % bar"), ("2", "1 objects, 100 % bar"), ("3", "2 objects, 100 % dot")]
    contact_sheet = page[page.index("What the clusters hold") : page.index("Confusion and matching")]
    assert re.findall(r'class="wrong" title="([^"]*)"', contact_sheet) == ["t003: dot"]


def test_clean_and_unclean(reported):
    """One of two unclean objects is misplaced; t011 has no entropy, and is not in the histogram."""
    page = reported[2]
    assert ">4 clean</text>" in page and ">1 unclean</text>" in page
    assert "Objects of another class than most of their cluster: 0 % of the clean, 50 % of the unclean." in page


def test_confusion_names_the_matched_classes(reported):
    page = reported[2]
    for name in ("1 → bar", "2 → bar", "3 → dot", "any base"):
        assert page.count(f">{name}</text>") == 4  # two methods; both matrices, or row and column of the small one
    # bar is row 3 of 0..29 in rows of 6: 18..23; cluster 3 gets 23 of 123
    assert ">19</text>" in page


def test_choices_made_with_validation_labels(chain):
    cfg, out = chain
    assert discovery.choices(opened(cfg, out)) == ""  # an evaluation without them
    compared = [
        {"model": "best epoch", "matching": "official", "novel_miou": 0.5432, "base_miou": 0.7, "miou": 0.6},
        {"model": "last epoch", "matching": "one_to_one", "novel_miou": 0.1234, "base_miou": 0.7, "miou": 0.6},
    ]
    write_json(out / "eval_eums" / "metrics.json", metrics(0.5, 0.7, [[0, 0], [1, 0], [2, 1]]) | {"compared": compared})
    text = discovery.choices(opened(cfg, out))
    assert re.search(r"EUMS, last epoch, one to one matching<.*?12\.3", text, re.S) and text.count("<tr") == 3


def test_pictures_for_tensorboard(reported, chain):
    """A row of objects of each cluster, and the gallery."""
    found = discovery.board_pictures(opened(*chain))
    sizes = {
        number: sum(cluster == number for cluster in CLUSTERS.values()) for number in sorted(set(CLUSTERS.values()))
    }
    assert list(found) == [f"clusters/{number}" for number in sizes]  # the copied folder has no gallery
    assert [row.shape for row in found.values()] == [(96, 96 * min(10, size), 3) for size in sizes.values()]
    out, terminal = reported[1], reported[3]
    assert list((out / "tb").glob("events*")) and f"curves and pictures: tensorboard --logdir {out}" in terminal


def test_gallery_shows_the_true_colours(reported):
    with Image.open(reported[1] / "gallery.png") as picture:
        pixels = np.array(picture)
    columns = (pixels.shape[1] - 118) // 248
    assert columns == COLUMNS and pixels.shape[0] // 248 == 4  # image, truth, basic, EUMS
    bar, dot = voc_palette()[3].astype(int), voc_palette()[4].astype(int)
    for column in range(columns):
        color = (bar, dot)[column % 2]  # the novel classes in turn
        for row in (1, 2, 3):
            cell = pixels[row * 248 : row * 248 + 240, 118 + column * 248 : 358 + column * 248].reshape(-1, 3)
            tag = (np.abs(cell.astype(int) - color).max(1) == 0).sum()
            assert tag > 60, (column, row)  # the filled name tag has exactly the class's colour


@pytest.mark.parametrize(
    ("stages", "section", "said"),
    [
        ("eval_basic eval_eums", discovery.validation_gallery, "No predictions are saved: <code>python eval.py"),
        ("eval_basic eval_eums", discovery.classes, "No model is evaluated: <code>python eval.py"),
        ("eval_basic eval_eums", discovery_clusters.confusion, "No model is evaluated: <code>python eval.py"),
        ("pseudo", discovery_clusters.training_gallery, NOT_CLUSTERED),
        ("pseudo", discovery_clusters.clusters, NOT_CLUSTERED),
        ("ranking", discovery_clusters.ranking, "The images are not ranked yet: <code>python entropy_rank.py"),
        ("base basic eums", discovery.learning, "No model is trained: <code>python train_base.py"),
    ],
)
def test_a_section_without_its_stage_says_so_in_one_line(chain, stages, section, said):
    cfg, out = chain
    for stage in stages.split():
        (out / stage / "metrics.json").unlink()
    text = section(opened(cfg, out))
    assert said in text and text.count("<p") == 1 and "<img" not in text and "<svg" not in text


def test_training_curves(chain):
    """One loss per kind of image and stage, and the scores of both groups of classes; the sum of losses is left out."""
    text = discovery.learning(opened(*chain))
    assert re.findall(r"<h3>([^<]*)</h3>", text) == [
        *("Loss, base model", "Loss, basic", "Loss, EUMS"),
        *("Validation mIoU, novel classes", "Validation mIoU, base classes"),
    ]
    assert text.count("<polyline") == 3 + 3 + 3


def test_clusters_made_with_another_k(chain):
    """What is on disk counts, not the number of clusters configured now."""
    cfg, out = chain
    fewer = cfg.model_copy(update={"cluster": cfg.cluster.model_copy(update={"k": 2})})
    assert "Cluster 3" in discovery_clusters.clusters(opened(fewer, out))
    assert "t007, cluster 3" in discovery_clusters.training_gallery(opened(fewer, out))


def test_suggested_names_stand_beside_their_cluster(chain):
    cfg, out = chain
    assert "could be" not in discovery_clusters.clusters(opened(cfg, out))
    write_json(out / "pseudo" / "names.json", {"1": [["bar", 0.623], ["dot", 0.2]], "3": [["dot", -0.1]]})
    page = discovery_clusters.clusters(opened(cfg, out))
    assert (
        "could be bar (0.62), dot (0.20)" in page and "could be dot (-0.10)" in page and page.count("; could be") == 2
    )
    assert "cluster.names=suggest" in page


def test_one_finished_stage_makes_a_page(tiny, tmp_path):
    """Only the basic model is evaluated, without saved predictions."""
    out = tmp_path / "out" / "two"
    write_json(out / "eval_basic" / "metrics.json", metrics(0.4321, 0.777, [[0, 0], [1, 1], [2, -1]]))
    np.save(out / "eval_basic" / "confusion.npy", np.ones((5, 6), np.int64))
    assert guarded(report.main, [str(tiny)]) == 0
    page = page_of(out)
    assert "No predictions are saved" in page and not (out / "gallery.png").exists()
    assert ">3 → none</text>" in page and "<b>43.2</b>" in page


def test_nothing_finished(tiny, capsys):
    assert guarded(report.main, [str(tiny)]) == 2
    error = capsys.readouterr().err
    assert "no finished stage" in error and error.count("\n") == 1


def test_data_without_masks_of_novel_images(chain, voc, tmp_path):
    """Clusters are shown, but nothing is called wrong."""
    cfg, out = chain
    known = opened(cfg, out)
    classes = {"t002": 1, "t003": 2, "t006": 1, "t007": 2, "t010": 1, "t011": 2}
    assert known.true_class == {Unit(name): number for name, number in classes.items()}
    bare = tmp_path / "bare"
    for folder in ("images", "saliency_supervised_model", "sets"):
        (bare / folder).mkdir(parents=True)
        for path in (voc / folder).iterdir():
            (bare / folder / path.name).symlink_to(path)
    unknown = discovery_chain.Chain(
        replace(known.data, context=replace(known.data.context, root=bare)), out, known.metrics
    )
    assert unknown.true_class == {} and not unknown.misplaced(Unit("t003"))
    for section in (discovery_clusters.clusters, discovery_clusters.training_gallery, discovery_clusters.ranking):
        text = section(unknown)
        assert "wrong" not in text and "ground truth" not in text and "<img" in text
