"""Base training of novel class discovery with the focal loss, in the place of train_base.py.

python -m tests.examples.own_method.train_focal tests/examples/own_method/focal.yaml own.gamma=1
"""

from data.discovery import DiscoveryData
from models.deeplab import build_model
from tests.examples.own_method.focal import focal_loss
from utils.config.reader import load_config
from utils.loop import fit
from utils.recipe import Recipe, decoder_and_backbone
from utils.run import entry, start_run


class FocalRecipe(Recipe):
    """L = (1 - p)^gamma CE(f(x), y) on images with at least one base class."""

    score = "miou"

    def __init__(self, model, settings, gamma, feed=None, protocol=None):
        super().__init__(model, settings, feed, protocol)
        self.gamma = gamma

    def parameter_groups(self):
        return decoder_and_backbone(self.model, self.settings)

    def step(self, batch, epoch):
        images, label = self.model.normalize(batch["base"]["image"]), batch["base"]["label"]
        return {"focal": focal_loss(self.model(images).logits, label, self.gamma)}


def main(argv=None):
    cfg = load_config(argv, __doc__, __file__, ("ncdss",))
    data = DiscoveryData.open(cfg)
    with start_run(cfg, "base", ("base_training",), {}) as run:
        if run.finished:
            return
        model = run.place(build_model(cfg.model, data.num_known))
        images = data.labelled(data.lists.base_train, data.base_map(), train=True)
        feed = {"base": data.context.source("base", images, cfg.base_training.batch_size)}
        recipe = FocalRecipe(model, cfg.base_training, cfg.own.gamma, feed, data.base_protocol())
        run.finish(fit(recipe, cfg.base_training, run))


if __name__ == "__main__":
    entry(main)
