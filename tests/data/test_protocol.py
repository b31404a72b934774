"""What the data builders of all systems have in common, and the image lists that each says its stages read."""

from collections.abc import Callable

import pytest
import yaml

from data.protocol import SystemData, builder_of, labelled_sets, open_data, read_sets
from data.source import DataContext, ImageSet
from tests.conftest import TASK, make_task_shapes, make_voc, write_tiny
from utils.checkpoint import write_list
from utils.config.reader import load_config
from utils.systems import SYSTEMS, resolve

Read = Callable[..., dict[str, ImageSet]]


@pytest.fixture
def read(tmp_path) -> Read:
    """The image sets, by name, of a system's configuration on drawn images: disc, square, bar, dot in turn."""
    shapes, root = make_task_shapes(tmp_path / "shapes"), make_voc(tmp_path / "voc", train=8, val=4)
    (shapes / "two.yaml").write_text("novel: [bar, dot]\n")

    def read_configuration(system: str, data: dict | None = None, **keys) -> dict[str, ImageSet]:
        own = {"dataset": str(shapes), "root": str(root), "train_list": "trainaug", **(data or {})}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({"system": system, "output_dir": str(tmp_path / "out"), "data": own, **keys}))
        return {images.name: images for images in read_sets(load_config([str(path)], ""))}

    return read_configuration


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_builder_implements_the_protocol(system):
    builder = resolve(SYSTEMS[system].data)
    assert SystemData in builder.__mro__
    assert {"open", "evaluation"} <= {name for kind in builder.__mro__[:2] for name in vars(kind)}


def test_a_builder_by_its_system(tiny):
    cfg = load_config([str(tiny)], "")
    assert type(open_data(cfg)) is builder_of(cfg)


def test_default_sets_are_the_lists_of_section_data(tiny):
    train, val = labelled_sets(DataContext.open(load_config([str(tiny)], "")))
    assert (len(train.ids), len(val.ids)) == (48, 12) and not train.validation and val.validation
    assert train.class_names[3] == "bar" and train.label_map and train.label_map.new_value(3) == 3
    assert [sample.id for sample in val.samples()] == list(val.ids)


def test_novel_images_of_discovery_follow_from_masks_or_from_lists(read, tmp_path):
    found = read("ncdss", split="two")
    assert found["novel"].showing == {3, 4} and found["novel"].ids == found["train"].ids
    assert found["novel"].fields == ("image", "saliency") and "novel" not in read(
        "ncdss", split="two", cluster={"salient": False}
    )
    half = read("ncdss", {"images": "mixed"}, split="two")["novel"]
    assert half.showing is None and len(half.ids) == 4
    lists = {"base_train_two": "t000", "two_base": "t000", "two_novel": "t002", "base_val_two": "v000", "val": "v000"}
    for name, listed in lists.items():
        write_list(tmp_path / "lists" / f"{name}.txt", [listed])
    given = read("ncdss", {"lists": str(tmp_path / "lists")}, split="two")  # they precede train_list, as in the stages
    assert [list(given[name].ids) for name in ("train", "val", "novel")] == [["t000", "t002"], ["v000"], ["t002"]]


def test_masks_of_unknown_classes_are_not_read(tmp_path):
    config, root = write_tiny(tmp_path, make_voc(tmp_path / "voc", train=8, val=4)), tmp_path / "voc"
    (tmp_path / "shapes/none.yaml").write_text("novel: unknown\n")
    write_list(root / "sets/train.txt", ["t000", "t001"])
    write_list(root / "sets/unlabelled.txt", ["t002", "t003"])
    cfg = load_config([str(config), "split=none", "data.train_list=null"], "")
    assert {s.name: list(s.ids) for s in read_sets(cfg) if not s.validation} == {
        "train": ["t000", "t001"],
        "novel": ["t002", "t003"],
    }


@pytest.mark.parametrize(
    ("method", "unknown", "saliency"), [("ssul", "saliency", True), ("ssul", "off", False), ("mib", "saliency", False)]
)
def test_steps_read_saliency_for_the_unknown_class_of_ssul(read, method, unknown, saliency):
    ssul = TASK["ssul"] | {"unknown": unknown}
    assert ("saliency" in read("ssul", task="abc", method=method, ssul=ssul)["train"].fields) == saliency


def test_probes_read_what_their_mode_needs(read):
    """Backbones have no saliency head, so that objects come from saliency maps; a linear probe needs neither."""
    linear = read("probe", mode="linear")
    assert linear["train"].label_folder == "SegmentationClassAug" and linear["val"].label_folder == "SegmentationClass"
    assert "saliency" not in linear["val"].fields
    assert read("probe", mode="kmeans", model={"kind": "backbone"}).keys() == {"val"}
    assert "saliency" in read("probe", mode="kmeans", model={"kind": "backbone"})["val"].fields
    assert "saliency" not in read("probe", mode="kmeans")["val"].fields  # by the head of a MaskContrast encoder
    memory = read("probe", mode="retrieval", retrieval={"memory": "val"})["train"]
    assert memory.label_folder == "SegmentationClass" and list(memory.ids) == ["v000", "v001", "v002", "v003"]


def test_images_of_weak_shot_training_need_no_mask_with_a_file_of_tags(read, tmp_path):
    assert read("simformer", split="two")["train"].missing == "error"
    assert read("simformer", {"tags": str(tmp_path / "tags.csv")}, split="two")["train"].missing == "drop"


def test_contrast_reads_validation_images_where_there_is_a_list(read, tmp_path):
    found = read("maskcontrast", {"mask_rule": "official"})
    assert found.keys() == {"train", "val"} and found["val"].missing == "drop"
    assert {s.mask_rule for s in found.values()} == {"official"}
    (tmp_path / "voc/sets/val.txt").unlink()
    assert read("maskcontrast").keys() == {"train"}
