"""Pictures without background whose images hold labelled and novel classes: the same chain, from start to report."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import cluster_pseudolabel
import entropy_rank
import eval as evaluation  # the module's name is the script's
import finetune_novel
import prepare_data
import report
import train_base
from data.discovery.builder import DiscoveryData
from data.discovery.units import Unit, by_unit, read_parts
from data.io import read_label, write_label
from tests.conftest import TINY
from utils.checkpoint import read_json, read_list, write_list
from utils.config.reader import load_config
from utils.run import guarded

CLASSES = ["sky", "road", "tree", "car"]  # numbers 0 to 3; the last two are novel
COLORS = np.array([(120, 170, 230), (110, 110, 115), (40, 140, 50), (210, 40, 40)])


def run(main, config, *overrides) -> int:
    return guarded(main, [str(config), *map(str, overrides)])


def write_scenes(root: Path, train: int = 24, val: int = 6) -> None:
    """Sky above a road, a tree at one side and a car on the road, in every image."""
    rng = np.random.default_rng(0)
    names = {part: [f"{part}{i:02d}" for i in range(count)] for part, count in (("train", train), ("val", val))}
    for part, ids in names.items():
        write_list(root / "sets" / f"{part}.txt", ids)
        for name in ids:
            label = np.zeros((40, 40), np.uint8)
            label[20:] = 1
            left, at = rng.integers(0, 8), rng.integers(18, 26)
            label[4:26, left : left + 10] = 2
            label[26:34, at : at + 12] = 3
            image = (COLORS[label] + rng.integers(-15, 15, (40, 40, 3))).clip(0, 255).astype(np.uint8)
            (root / "images").mkdir(exist_ok=True)
            Image.fromarray(image).save(root / "images" / f"{name}.jpg", quality=95)
            write_label(root / "labels" / f"{name}.png", label)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """(configuration, folder of the stages) of a finished chain."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder)
    (folder / "classes.yaml").write_text(yaml.safe_dump({"classes": CLASSES, "background": None}))
    (folder / "two.yaml").write_text("novel: [tree, car]\n")
    tree = {**TINY, "output_dir": str(folder / "out")}
    tree["data"] = {"dataset": str(folder), "root": str(folder), "image_size": 32, "workers": 0, "train_list": "train"}
    tree["data"] |= {"images": "mixed", "border": "ignore", "novel_pixels": "ignore"}
    tree["cluster"] = {**TINY["cluster"], "salient": False, "unit": "region", "regions": 6, "min_pixels": 0}
    tree["cluster"] |= {"min_share": 0.02, "threshold": 0.9, "k": 4}
    tree["evaluation"] = {"match": "one_to_one", "absent": "skip"}
    config = folder / "scenes.yaml"
    config.write_text(yaml.safe_dump(tree))
    assert run(train_base.main, config) == 0
    assert run(cluster_pseudolabel.main, config) == 0
    assert run(finetune_novel.main, config, "method=basic") == 0
    assert run(entropy_rank.main, config) == 0
    assert run(finetune_novel.main, config, "method=eums") == 0
    assert run(evaluation.main, config, "method=eums", "save_predictions=true") == 0
    return config, folder / "out" / "two"


def test_half_of_the_images_are_labelled_whatever_they_show(scenes):
    config, out = scenes
    data = DiscoveryData.open(load_config([str(config)], ""))
    base, novel = read_list(out / "pseudo" / "base.txt"), read_list(out / "pseudo" / "novel.txt")
    assert len(base) == 12 and not set(base) & set(novel) and set(novel) <= set(data.lists.novel)
    assert sorted([*base, *data.lists.novel]) == [f"train{i:02d}" for i in range(24)]
    other = DiscoveryData.open(load_config([str(config), "seed=8", "data.labelled=0.25"], ""))
    assert len(other.lists.base) == 6 and other.lists.base != tuple(base[:6])


def test_a_background_that_no_mask_holds(scenes):
    config, _ = scenes
    data = DiscoveryData.open(load_config([str(config)], ""))
    assert data.groups.names == ["background", *CLASSES] and data.num_known == 3
    assert [data.full_map().new_value(number) for number in range(4)] == [1, 2, 3, 4]
    assert [data.base_map().new_value(number) for number in range(4)] == [1, 2, None, None]
    published = DiscoveryData.open(load_config([str(config), "data.novel_pixels=background"], ""))
    assert [published.base_map().new_value(number) for number in range(4)] == [1, 2, 0, 0]


def test_parts_lie_where_no_base_class_is_certain_and_have_a_cluster_each(scenes):
    _, out = scenes
    pseudo = out / "pseudo"
    clusters = by_unit(read_json(pseudo / "clusters.json"))
    assert set(clusters.values()) <= {1, 2, 3, 4} and len(clusters) > len(read_list(pseudo / "novel.txt"))
    for name in read_list(pseudo / "novel.txt"):
        parts, base = read_parts(pseudo, name), read_label(pseudo / "high_base_pred" / f"{name}.png")
        label = read_label(pseudo / "pseudo_labels" / f"{name}.png")
        sizes = np.bincount(parts.ravel())[1:]
        assert not parts[base > 0].any() and min(sizes) >= 0.02 * parts.size and list(sizes) == sorted(sizes)[::-1]
        numbers = {part: clusters[Unit(name, part)] for part in range(1, len(sizes) + 1)}
        inner = parts.copy()  # borders move by up to a pixel on the way through the size of the network
        expected = np.array([0, *(numbers[part] + 2 for part in sorted(numbers))])[inner]
        expected = np.where(base > 0, base, np.where(expected > 0, expected, 255))
        assert np.mean(label == expected) > 0.85 and set(np.unique(label)) <= {1, 2, *range(3, 7), 255}


def test_metrics_are_those_of_generalised_discovery(scenes):
    _, out = scenes
    metrics = read_json(out / "eval_eums" / "metrics.json")
    classes = metrics["per_class"]
    assert list(classes) == ["background", *CLASSES] and not classes["background"]  # no mask holds it
    means = {"base": np.mean([classes["sky"], classes["road"]]), "novel": np.mean([classes["tree"], classes["car"]])}
    assert metrics["base_miou"] == pytest.approx(means["base"]) and metrics["novel_miou"] == pytest.approx(
        means["novel"]
    )
    harmonic = 2 * means["base"] * means["novel"] / max(sum(means.values()), 1e-12)
    assert metrics["harmonic_miou"] == pytest.approx(harmonic)
    assert sorted(novel for _, novel in metrics["match"]) == [-1, -1, 0, 1]  # four clusters, two of them matched
    assert {row["matching"] for row in metrics["compared"]} == {"official", "one_to_one"}
    written = {int(v) for path in (out / "eval_eums" / "predictions").iterdir() for v in np.unique(read_label(path))}
    assert written <= {0, 1, 2, 3, 255, len(CLASSES)}  # the last is the background of networks, which has no number


def test_semi_supervised_clustering_may_give_a_part_back_to_a_base_class(scenes):
    config, out = scenes
    options = ("cluster.assign=semi", "cluster.threshold=0.999")  # so that much of the base classes is left
    assert run(cluster_pseudolabel.main, config, *options, f"base_checkpoint={out / 'base' / 'best.pth'}") == 0
    clusters = by_unit(read_json(out / "pseudo_semi" / "clusters.json"))
    assert set(clusters.values()) <= {-2, -1, 1, 2, 3, 4} and min(clusters.values()) < 0
    metrics = read_json(out / "pseudo_semi" / "metrics.json")
    assert metrics["base_objects"] == sum(cluster < 0 for cluster in clusters.values())
    unit = next(unit for unit, cluster in clusters.items() if cluster < 0)
    where = read_parts(out / "pseudo_semi", unit.image) == unit.part
    label = read_label(out / "pseudo_semi" / "pseudo_labels" / f"{unit.image}.png")
    assert np.bincount(label[where]).argmax() == -clusters[unit]


def test_report_and_check_need_no_saliency(scenes):
    config, out = scenes
    assert run(prepare_data.main, "check", config) == 0
    assert run(report.main, config) == 0
    page = (out / "report.html").read_text()
    assert "one for each part in a cell of alike features" in page and "<h2>Clean and unclean" in page
    assert "saliency" not in page.split("How pseudo-labels are made")[1].split("</section>")[0]


def test_connected_parts_are_counted_and_clustered(scenes, tmp_path):
    """All that no base class claims, part by part, with an estimated number of clusters."""
    config, out = scenes
    options = ("cluster.unit=component", "cluster.k=auto", "cluster.k_most=3", "cluster.pca_dim=2")
    given = (f"output_dir={tmp_path}", f"base_checkpoint={out / 'base' / 'best.pth'}")
    assert run(cluster_pseudolabel.main, config, *options, *given) == 0
    pseudo = tmp_path / "two" / "pseudo"
    metrics, clusters = read_json(pseudo / "metrics.json"), by_unit(read_json(pseudo / "clusters.json"))
    assert metrics["k"] == read_json(pseudo / "how_many.json")["k"] in (2, 3)
    assert sum(metrics["cluster_sizes"]) == len(clusters) == len(by_unit(read_json(pseudo / "certainty.json")))
    for name in read_list(pseudo / "novel.txt"):
        rows, parts = np.load(pseudo / "prototypes" / f"{name}.npy"), read_parts(pseudo, name)
        assert (
            rows.shape == (parts.max(), 2) and (read_label(pseudo / "novel_map" / f"{name}.png")[parts > 0] > 0).all()
        )
