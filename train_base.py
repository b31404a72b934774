"""Stage 1 of 6: train a segmentation network on the base classes; novel objects are labelled background.

reads   images and masks of the base list
writes  <output_dir>/<split>/base/{best.pth, last.pth, metrics.json, ...}

    python train_base.py configs/demo/ncdss.yaml
    torchrun --nproc_per_node=2 train_base.py configs/ncdss/pascal_subset.yaml split=fold1 data.root=/my/voc
"""

from torch import nn

from data.discovery import Views
from losses.cross_entropy import cross_entropy
from models.deeplab import build_model
from models.weights import load_weights
from utils import dist
from utils.config.reader import load_config
from utils.loop import Recipe, fit
from utils.measure.evaluation import confusion
from utils.measure.metrics import summarize
from utils.run import Run, entry, start_run


class SupervisedRecipe(Recipe):
    """L = CE(f(x), y) on images with at least one base class; novel pixels are background."""

    score = "miou"

    def __init__(self, views: Views, run: Run):
        cfg, split = run.cfg, views.split
        self.views, self.run = views, run
        self.model = run.place(build_model(cfg.model, views.num_known))
        if cfg.init_from:
            load_weights(self.model, cfg.init_from, other_classes=True)
        pin = run.device.type == "cuda"
        train = views.labelled(views.lists.base_train, split.base_map(), train=True)
        self.train_sources = {"base": views.source("base", train, cfg.base_training, pin)}
        validation = views.labelled(views.lists.base_val, split.base_map(), folder=cfg.evaluation.label_folder)
        self.val_loader = views.loader(validation, cfg.evaluation.batch_size, pin)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"decoder": self.model.decoder_parameters(), "backbone": self.model.backbone_parameters()}

    def sources(self, epoch: int) -> dict:
        return self.train_sources

    def step(self, batch: dict, epoch: int) -> dict:
        images, label = self.model.normalize(batch["base"]["image"]), batch["base"]["label"]
        return {"base": cross_entropy(self.model(images).logits, label, pixels=dist.labelled_pixels(label))}

    def output_classes(self, metrics: dict) -> list[tuple[int, str]]:
        return self.views.output_classes(metrics)

    def evaluate(self) -> dict:
        known = self.views.num_known
        matrix = confusion(self.model, self.val_loader, self.run, num_true=known, num_pred=known)
        names = self.views.split.names[:known]
        groups = {"base": list(range(1, known))}
        return summarize(matrix, names, groups, self.run.cfg.evaluation.absent) | {"protocol": "network resolution"}


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, ("ncdss",))
    views = Views.open(cfg)
    inputs = {"init_from": cfg.init_from} if cfg.init_from else {}
    with start_run(cfg, "base", ("base_training",), inputs) as run:
        if run.finished:
            return
        recipe = SupervisedRecipe(views, run)
        run.finish(fit(recipe, cfg.base_training, run))


if __name__ == "__main__":
    entry(main)
