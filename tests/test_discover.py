"""From a folder of drawn photographs to named clusters, a labelled data set and predictions (docs/own_data.md)."""

import csv
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import yaml
from PIL import Image

import cluster_pseudolabel
import entropy_rank
import eval as evaluation
import export
import finetune_novel
import name_clusters
import predict
import prepare_data
import report
import train_base
from data.io import read_label, write_label
from data.labelled_set import LabelledImage, write_set
from tests.conftest import TINY, draw
from utils.checkpoint import load, read_json, read_list
from utils.run import guarded

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or ""
COLORS = {1: (200, 0, 0), 2: (0, 200, 0)}  # of masks: disc and square are known


def run(main, *words) -> int:
    return guarded(main, [str(word) for word in words])


def write_photos(folder, count: int = 32) -> None:
    """Discs and squares with colour masks, bars and dots with saliency maps alone; JPEG and PNG in turn."""
    rng = np.random.default_rng(1)
    (folder / "photos").mkdir()
    (folder / "masks").mkdir()
    (folder / "classes.csv").write_text("".join(f"{n},{','.join(map(str, COLORS[k]))}\n" for k, n in NAMES))
    for place in range(count):
        kind = 1 + place % 4
        image, mask = draw(kind, rng)
        Image.fromarray(image).save(folder / "photos" / f"p{place:03d}{('.JPG', '.png')[place // 4 % 2]}", quality=95)
        write_label(folder / "saliency" / f"p{place:03d}.png", mask.astype(np.uint8))
        if kind in COLORS:
            rgb = (mask[..., None] * np.array(COLORS[kind])).astype(np.uint8)
            Image.fromarray(rgb).save(folder / "masks" / f"p{place:03d}.png")


NAMES = ((1, "disc"), (2, "square"))


@pytest.fixture(scope="module")
def discovered(tmp_path_factory):
    """(configuration, folder of the stages) of a finished chain; clusters are named half-way."""
    folder = tmp_path_factory.mktemp("own")
    write_photos(folder)
    given = {"images": "photos", "labels": "masks", "colors": "classes.csv", "root": "mine", "config": "mine.yaml"}
    words = [word for name, path in given.items() for word in (f"--{name}", folder / path)]
    assert run(prepare_data.main, "folder", *words) == 0
    (folder / "saliency").rename(folder / "mine" / "saliency")
    config = folder / "mine.yaml"
    tree = yaml.safe_load(config.read_text())
    small = {section: TINY[section] for section in ("model", "base_training", "basic", "eums")}
    small["model"] = TINY["model"] | {"backbone": "resnet18"}  # whose files cluster.features=base reads
    tree |= {**small, "output_dir": str(folder / "out"), "seed": 7}
    tree["data"]["image_size"] = 32
    tree["cluster"] |= {"features": "base", "features_size": 32, "min_pixels": 20, "threshold": 0.99, "k_most": 4}
    config.write_text(yaml.safe_dump(tree))
    assert run(prepare_data.main, "check", config) == 0
    assert run(train_base.main, config) == 0
    assert run(cluster_pseudolabel.main, config) == 0
    assert run(report.main, config) == 0
    assert run(name_clusters.main, config, "1=long bar", "2=drop") == 0
    for main, method in (
        (finetune_novel, "basic"),
        (entropy_rank, None),
        (finetune_novel, "eums"),
        (evaluation, "eums"),
    ):
        assert run(main.main, config, *([f"method={method}"] if method else [])) == 0
    return config, folder / "out" / "unknown"


def test_nothing_is_scored_that_nobody_knows(discovered):
    _, out = discovered
    for stage in ("eums", "eval_eums"):
        metrics = read_json(out / stage / "metrics.json")
        assert not any("novel" in key or "harmonic" in key for key in metrics)
        assert {index for _, index in metrics["match"]} == {-1} and metrics["base_miou"] is not None
        assert list(metrics["per_class"]) == ["background", "disc", "square"]
    assert "purity" not in read_json(out / "pseudo" / "metrics.json")


def test_the_last_epoch_is_taken(discovered):
    _, out = discovered
    for method, epochs in (("basic", 2), ("eums", 3)):
        assert load(out / method / "best.pth")["epoch"] == epochs
        last = load(out / method / "last.pth")["model"]
        assert all(last[key].equal(value) for key, value in load(out / method / "best.pth")["model"].items())


def test_the_estimate_is_what_the_stages_use(discovered):
    _, out = discovered
    estimate = read_json(out / "pseudo" / "how_many.json")
    k = read_json(out / "pseudo" / "metrics.json")["k"]
    assert k == estimate["k"] and set(estimate["best"]) == {"silhouette", "stability", "known classes"}
    assert len(load(out / "basic" / "best.pth")["classes"]) == 3 + k
    assert set(read_json(out / "pseudo" / "certainty.json")) == set(read_list(out / "pseudo" / "novel.txt"))


def test_names_change_what_outputs_are_called_and_no_stage(discovered, tmp_path, capsys):
    config, out = discovered
    saved = [tuple(pair) for pair in load(out / "eums" / "best.pth")["classes"]]
    assert saved[3:5] == [(3, "long bar"), (0, "background")]  # as they were when it was trained
    assert run(name_clusters.main, config, "1=square", "2=dot") == 0
    try:
        photo = next((config.parent / "photos").iterdir())
        assert run(predict.main, out / "eums" / "best.pth", photo, "--to", tmp_path) == 0
        assert run(export.main, out / "eums" / "best.pth", tmp_path / "named.pth", "--to", "ours") == 0
        named = [tuple(pair) for pair in load(tmp_path / "named.pth")["classes"]]
        assert named[3:5] == [(2, "square"), (3, "dot")]
        assert run(finetune_novel.main, config, "method=eums") == 0  # still finished
    finally:
        run(name_clusters.main, config, "1=long bar", "2=drop")
    assert "no such cluster" not in capsys.readouterr().err
    assert run(name_clusters.main, config, "9=dog") == 2
    assert "9=dog: no such cluster; they are numbered 1 to" in capsys.readouterr().err
    assert run(name_clusters.main, config, "1=Disc") == 2
    assert "classes 'disc' and 'Disc' differ in capitals or spaces alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "text"), [("clusters", '{"a": ["b"]}'), ("names", '{"1": 5}'), ("certainty", '{"a": "b"}')]
)
def test_results_of_another_kind_are_one_line(discovered, tmp_path, capsys, file, text):
    config, out = discovered
    shutil.copytree(out, tmp_path / "unknown")
    (tmp_path / "unknown" / "pseudo" / f"{file}.json").write_text(text)
    assert run(report.main, config, f"output_dir={tmp_path}") == 2
    error = capsys.readouterr().err
    assert f"{file}.json: '" in error and "so make it again" in error and error.count("\n") == 1


def test_names_do_not_go_over_to_other_clusters(discovered, tmp_path, caplog):
    config, out = discovered
    shutil.copytree(out, tmp_path / "unknown")
    options = (config, f"output_dir={tmp_path}", "cluster.k=3")
    assert run(cluster_pseudolabel.main, *options, "resume=false") == 0
    assert not (tmp_path / "unknown" / "clusters.yaml").exists()
    assert run(name_clusters.main, *options, "1=dot", "2=bar", "3=drop") == 0
    photo = next((config.parent / "photos").iterdir())
    assert run(predict.main, tmp_path / "unknown" / "eums" / "best.pth", photo, "--to", tmp_path) == 0
    assert read_list(tmp_path / "classes.txt")[3] == "long bar"  # as when it was trained
    assert "names other clusters than these" in caplog.text


def test_photographs_without_labels_are_labelled(discovered):
    config, out = discovered
    assert run(export.main, out / "eums" / "best.pth", out / "labelled", "--format", "folder") == 0
    names = read_list(out / "labelled" / "classes.txt")
    assert names[:4] == ["background", "disc", "square", "long bar"]
    unlabelled = read_list(config.parent / "mine" / "sets" / "unlabelled.txt")
    assert sorted(path.stem for path in (out / "labelled" / "labels").iterdir()) == sorted(unlabelled)
    with (out / "labelled" / "confidence.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["image"].split(".")[0] for row in rows} == set(unlabelled)
    assert all(row["cluster_certainty"] for row in rows if row["image"].split(".")[0] in clustered(out))
    with (out / "labelled" / "labels.csv").open(newline="") as file:
        sources = {row["image"].split(".")[0]: row["source"] for row in csv.DictReader(file)}
    assert sources == {name: "fused" if name in clustered(out) else "network" for name in unlabelled}


def test_labels_may_be_those_of_clustering(discovered, tmp_path):
    """Label and pseudo-label agree but for the borders, which go through the resolution of the network."""
    _, out = discovered
    options = ("--format", "folder", "--labels", "pseudo")
    assert run(export.main, out / "eums" / "best.pth", tmp_path / "labelled", *options) == 0
    for name in clustered(out):
        label = read_label(tmp_path / "labelled" / "labels" / f"{name}.png")
        pseudo = read_label(out / "pseudo" / "pseudo_labels" / f"{name}.png")
        assert ((label == 3) == (pseudo == 3)).mean() > 0.9  # cluster 1 is the class `long bar`


def test_a_source_without_its_files_is_one_line(discovered, tmp_path, capsys):
    config, out = discovered
    source, target = out / "eums" / "best.pth", tmp_path / "labelled"
    options = ("--images", config.parent / "photos", "--labels", "pseudo", "--format", "folder")
    assert run(export.main, source, target, *options) == 2
    assert "--labels pseudo: the photographs have no pseudo-labels; use --labels network" in capsys.readouterr().err
    assert run(export.main, source, tmp_path / "a.onnx", "--format", "onnx", "--labels", "pseudo") == 2
    assert "--labels: --format onnx writes a network and labels nothing" in capsys.readouterr().err


def test_the_page_shows_what_the_network_finds(discovered):
    """Of a data set written here, as the network of two epochs finds nothing."""
    config, out = discovered
    photo, label = config.parent / "photos" / "p002.JPG", np.zeros((40, 40), np.uint8)
    label[10:30, 10:30] = 3
    names = ["background", "disc", "square", "long bar"]
    write_set(out / "labelled", "folder", [LabelledImage(photo, label, np.full((40, 40), 0.9))], names)
    assert run(report.main, config) == 0
    page = (out / "report.html").read_text()
    assert f"The labelled data set lies in {out}/labelled" in page and "<small>p002.JPG</small>" in page
    never = set(re.findall(r'<div class="naming never">.*?Cluster (\d+)', page))
    k = read_json(out / "pseudo" / "metrics.json")["k"]
    assert never == {str(cluster) for cluster in range(3, k + 1)}  # 1 is found, 2 is dropped


def clustered(out) -> set[str]:
    return set(read_json(out / "pseudo" / "clusters.json"))


def test_the_page_asks_for_names_and_quotes_no_paper(discovered):
    config, out = discovered
    assert run(report.main, config) == 0
    page = (out / "report.html").read_text()
    k = read_json(out / "pseudo" / "metrics.json")["k"]
    assert page.count("<input data-cluster=") == k and 'value="long bar"' in page
    assert f"python name_clusters.py {out}/pseudo/config.yaml" in page
    assert "49.81" not in page and "How many clusters" in page and ">random labels<" not in page
    assert run(name_clusters.main, out / "pseudo" / "config.yaml") == 0  # the command on the page


@pytest.mark.skipif(not BROWSER, reason="no Chromium to click with")
def test_the_fields_make_the_command(discovered, tmp_path):
    """In a browser: a name with a space is written into the first field, the first photograph is opened."""
    config, out = discovered
    assert run(report.main, config) == 0
    clicks = """<script>
        const field = document.querySelector('input[data-cluster="1"]');
        field.value = "great dane"; field.dispatchEvent(new Event("input"));
        document.querySelector('.objects summary').click();
        document.title = getComputedStyle(document.querySelector('.objects details[open] .whole')).position;
    </script></body>"""
    (tmp_path / "page.html").write_text((out / "report.html").read_text().replace("</body>", clicks))
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    page = subprocess.run([*words, "--dump-dom", tmp_path / "page.html"], capture_output=True, text=True, timeout=120)
    [line] = re.findall(r'<code id="naming-line"[^>]*>([^<]*)</code>', page.stdout)
    assert line == f"python name_clusters.py {out}/pseudo/config.yaml '1=great dane' 2=drop"
    assert "<title>fixed</title>" in page.stdout


def test_predictions_tell_classes_and_areas(discovered, tmp_path):
    config, out = discovered
    photos = sorted((config.parent / "photos").iterdir())[:3]
    assert run(predict.main, out / "eums" / "best.pth", *photos, "--to", tmp_path) == 0
    found = json.loads((tmp_path / "predictions.json").read_text())
    assert [row["image"] for row in found] == [str(photo) for photo in photos]
    names = read_list(tmp_path / "classes.txt")
    for row, photo in zip(found, photos, strict=True):
        label = read_label(tmp_path / f"{photo.stem}.png")
        assert row["pixels"] == {names[n]: int((label == n).sum()) for n in np.unique(label)}
        assert (row["height"], row["width"]) == label.shape
