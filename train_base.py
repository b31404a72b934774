"""First stage: train a segmentation network on the labelled classes.

discovery   base classes; novel classes are background          stage base
zero-shot   images without a pixel of an unseen class           stage step1

reads   images and masks of the base list, or of the images with seen classes only
writes  <output_dir>/<split>/{base, step1}/{best.pth, last.pth, metrics.json, ...}; step1 has no best.pth

    python train_base.py configs/demo/discovery.yaml
    python train_base.py configs/demo/zeroshot.yaml
    torchrun --nproc_per_node=2 train_base.py configs/discovery/pascal_subset.yaml split=fold1 data.root=/my/voc
"""

from utils.entry import answer

if __name__ == "__main__":  # before the imports below, which take seconds
    answer(__doc__, __file__, ("ncdss", "zs3"))

from typing import Any

from data.discovery.builder import DiscoveryData
from data.protocol import open_data
from data.zeroshot.builder import ZeroShotData
from losses.cross_entropy import cross_entropy
from losses.zs3 import weighted_cross_entropy
from models.segmentation import build_network
from models.segmentation_files import load_network
from models.zeroshot.files import load_zero_shot_network
from utils import dist
from utils.config.discovery import DiscoveryConfig
from utils.config.reader import load_config
from utils.config.zeroshot import ZeroShotConfig
from utils.loop import fit
from utils.recipe import Recipe, decoder_and_backbone
from utils.run import Run, entry, start_run


class SupervisedRecipe(Recipe):
    """Class discovery: L = CE(f(x), y) on images with at least one base class; novel pixels are background."""

    score = "miou"

    def parameter_groups(self) -> list[dict[str, Any]]:
        return decoder_and_backbone(self.model, self.settings)

    def step(self, batch: dict, epoch: int) -> dict:
        images, label = self.model.normalize(batch["base"]["image"]), batch["base"]["label"]
        return {"base": cross_entropy(self.model(images).logits, label, pixels=dist.labelled_pixels(label))}


class SeenRecipe(Recipe):
    """L = CE(f(x), y) / B on images with seen classes only; the network has outputs for all classes (ZS3, step 1)."""

    score = None  # selecting the best epoch would use labels of unseen classes

    def parameter_groups(self) -> list[dict[str, Any]]:
        return decoder_and_backbone(self.model, self.settings)

    def step(self, batch: dict, epoch: int) -> dict:
        images, label = self.model.normalize(batch["seen"]["image"]), batch["seen"]["label"]
        count, pixels = len(label) * dist.world_size() * self.settings.accumulate, dist.labelled_pixels(label)
        return {"seen": weighted_cross_entropy(self.model(images).logits, label, images=count, total=pixels)}


def base_recipe(cfg: DiscoveryConfig, data: DiscoveryData, run: Run) -> Recipe:
    """The recipe of class discovery."""
    model = run.place(build_network(cfg.model, data.num_known))
    if cfg.init_from:
        load_network(model, cfg.init_from, other_classes=True)
    images = data.labelled(data.lists.base_train, data.base_map(), train=True)
    feed = {"base": data.context.source("base", images, cfg.base_training.batch_size)}
    return SupervisedRecipe(model, cfg.base_training, feed, data.base_protocol())


def seen_recipe(cfg: ZeroShotConfig, data: ZeroShotData, run: Run) -> Recipe:
    """The recipe of zero-shot segmentation."""
    model = run.place(build_network(cfg.model, data.num_classes))
    if cfg.init_from:
        load_zero_shot_network(model, cfg.init_from, other_classes=True)
    return SeenRecipe(model, cfg.step1, {"seen": data.step1_source(cfg.step1.batch_size)}, data.step1_protocol())


STAGES = {  # system -> name of the stage, its section of the configuration, its recipe
    "ncdss": ("base", "base_training", base_recipe),
    "zs3": ("step1", "step1", seen_recipe),
}


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, tuple(STAGES))
    data, (stage, reads, make) = open_data(cfg), STAGES[cfg.system]
    inputs = {"init_from": cfg.init_from} if cfg.init_from else {}
    with start_run(cfg, stage, (reads,), inputs, files=data.context.files) as run:
        if run.finished:
            return
        recipe = make(cfg, data, run)
        run.finish(fit(recipe, recipe.settings, run))


if __name__ == "__main__":
    entry(main)
