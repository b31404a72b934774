"""Does a data root hold what the stages of a configuration will read?"""

from collections import Counter
from collections.abc import Iterable

from tqdm import tqdm

from data.discovery import DiscoveryData
from data.io import read_image, read_label
from data.layouts import Sample
from utils.errors import UserError
from utils.labels import IGNORE


def check_discovery(data: DiscoveryData) -> Iterable[str]:
    """Open every file a discovery chain reads; lines of what was found.

    Pairs exist, sizes agree, label values are classes; the first fault is a UserError with its file's name.
    """
    lists = data.lists
    images_per_class: Counter[int] = Counter()
    train = list(dict.fromkeys((*lists.base_train, *lists.novel)))
    for role, ids, fields in (
        ("train", train, ("image", "label")),
        ("val", lists.val, ("image", "label")),
        ("novel", lists.novel, ("image", "label", "saliency")),
    ):
        missing = data.cfg.data.missing if role == "novel" else "error"
        samples = data.context.index(ids, fields, missing=missing)
        for sample in tqdm(samples, desc=role, leave=False, disable=None):
            values = check_sample(data, sample)
            if role == "train":
                images_per_class.update(values - {0, IGNORE})
        dropped = f", {len(ids) - len(samples)} without all files" if len(samples) < len(ids) else ""
        yield f"{role}: {len(samples)} images, no fault{dropped}"
    for index, name in enumerate(data.groups.names[1:], start=1):
        kind = "base" if index < data.num_known else "novel"
        yield f"  {kind:6}{name:20}{images_per_class[index]:6} training images"


def check_sample(data: DiscoveryData, sample: Sample) -> set[int]:
    """Train ids in the mask; UserError when a value is no class, or a map has another size than the image."""
    size = read_image(sample.image).shape[:2]
    label = data.full_map()(sample.load_label(), where=str(sample.label))
    found = {sample.label: label.shape}
    if sample.saliency:
        found[sample.saliency] = read_label(sample.saliency).shape
    for path, shape in found.items():
        if shape != size:
            raise UserError(f"{path}: {shape[1]}x{shape[0]} pixels, but {sample.image} has {size[1]}x{size[0]}")
    return set(label.ravel().tolist())
