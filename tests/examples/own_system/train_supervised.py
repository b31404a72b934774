"""Train a segmentation network on all classes of a data set.

reads   images and masks of data.train_list
writes  <output_dir>/<dataset>/train/{best.pth, last.pth, metrics.json, ...}

    python -m tests.examples.own_system.train_supervised tests/examples/own_system/supervised.yaml
"""

from losses.cross_entropy import cross_entropy
from models.segmentation import build_network
from utils import dist
from utils.config.reader import load_config
from utils.loop import fit
from utils.recipe import Recipe, decoder_and_backbone
from utils.run import entry, start_run

from .data import SupervisedData


class SupervisedRecipe(Recipe):
    """L = CE(f(x), y)."""

    score = "miou"

    def parameter_groups(self) -> list[dict]:
        return decoder_and_backbone(self.model, self.settings)

    def step(self, batch: dict, epoch: int) -> dict:
        images, label = self.model.normalize(batch["labelled"]["image"]), batch["labelled"]["label"]
        # normalised over the labelled pixels of all processes: any number of GPUs gives the same gradient
        return {"ce": cross_entropy(self.model(images).logits, label, pixels=dist.labelled_pixels(label))}


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, ("supervised",))
    data = SupervisedData.open(cfg)
    with start_run(cfg, cfg.trained.stage, ("training", "evaluation"), {}, files=data.context.files) as run:
        if run.finished:
            return
        model = run.place(build_network(cfg.model, len(data.classes)))
        feed = {"labelled": data.context.source("labelled", data.train(), cfg.training.batch_size)}
        recipe = SupervisedRecipe(model, cfg.training, feed, data.protocol())
        run.finish(fit(recipe, cfg.training, run))


if __name__ == "__main__":
    entry(main)
