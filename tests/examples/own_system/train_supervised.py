"""Train a segmentation network on all classes of a data set.

reads   images and masks of the training list
writes  <output_dir>/supervised/{best.pth, last.pth, metrics.json, ...}

    python -m tests.examples.own_system.train_supervised CONFIG
"""

from losses.cross_entropy import cross_entropy
from models.deeplab import build_model
from tests.examples.own_system.data import SupervisedData
from utils.config.reader import load_config
from utils.loop import fit
from utils.recipe import Recipe, decoder_and_backbone
from utils.run import entry, start_run


class SupervisedRecipe(Recipe):
    """L = CE(f(x), y)."""

    score = "miou"

    def parameter_groups(self):
        return decoder_and_backbone(self.model, self.settings)

    def step(self, batch, epoch):
        images, label = self.model.normalize(batch["train"]["image"]), batch["train"]["label"]
        return {"cross_entropy": cross_entropy(self.model(images).logits, label)}


def main(argv=None):
    cfg = load_config(argv, __doc__, __file__, ("supervised",))
    data = SupervisedData.open(cfg)
    with start_run(cfg, "supervised", ("training",), {}) as run:
        if run.finished:
            return
        model = run.place(build_model(cfg.model, len(data.classes)))
        feed = {"train": data.context.source("train", data.train(), cfg.training.batch_size)}
        run.finish(fit(SupervisedRecipe(model, cfg.training, feed, data.protocol()), cfg.training, run))


if __name__ == "__main__":
    entry(main)
