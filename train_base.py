"""Stage 1 of 6: train a segmentation network on the base classes; novel objects are labelled background.

reads   images and masks of the base list
writes  <output_dir>/<split>/base/{best.pth, last.pth, metrics.json, ...}

    python train_base.py configs/demo/ncdss.yaml
    torchrun --nproc_per_node=2 train_base.py configs/ncdss/pascal_subset.yaml split=fold1 data.root=/my/voc
"""

from typing import Any

from data.discovery import DiscoveryData
from losses.cross_entropy import cross_entropy
from models.deeplab import build_model
from models.deeplab_files import load_deeplab
from utils import dist
from utils.config.reader import load_config
from utils.loop import fit
from utils.recipe import Recipe, decoder_and_backbone
from utils.run import entry, start_run


class SupervisedRecipe(Recipe):
    """L = CE(f(x), y) on images with at least one base class; novel pixels are background."""

    score = "miou"

    def parameter_groups(self) -> list[dict[str, Any]]:
        return decoder_and_backbone(self.model, self.settings)

    def step(self, batch: dict, epoch: int) -> dict:
        images, label = self.model.normalize(batch["base"]["image"]), batch["base"]["label"]
        return {"base": cross_entropy(self.model(images).logits, label, pixels=dist.labelled_pixels(label))}


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, ("ncdss",))
    data = DiscoveryData.open(cfg)
    inputs = {"init_from": cfg.init_from} if cfg.init_from else {}
    with start_run(cfg, "base", ("base_training",), inputs) as run:
        if run.finished:
            return
        model = run.place(build_model(cfg.model, data.num_known))
        if cfg.init_from:
            load_deeplab(model, cfg.init_from, other_classes=True)
        images = data.labelled(data.lists.base_train, data.base_map(), train=True)
        feed = {"base": data.context.source("base", images, cfg.base_training.batch_size)}
        recipe = SupervisedRecipe(model, cfg.base_training, feed, data.base_protocol())
        run.finish(fit(recipe, cfg.base_training, run))


if __name__ == "__main__":
    entry(main)
