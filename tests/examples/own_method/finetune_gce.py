"""Fine-tuning that takes clusters with a grain of salt: generalised cross-entropy on the pseudo labels.

It stands in for finetune_novel.py method=basic, in an output_dir of its own.

reads   <output_dir>/<split>/pseudo, or pseudo_dir=FOLDER
writes  <output_dir>/<split>/basic/{best.pth, last.pth, metrics.json, ...}

    python -m tests.examples.own_method.finetune_gce tests/examples/own_method/gce.yaml own.q=0.5
"""

from data.discovery.builder import DiscoveryData, FineTuningImages
from data.discovery.chain import pseudo_files, pseudo_folder
from losses.cross_entropy import cross_entropy
from models.deeplab import build_model
from utils.config.reader import load_config
from utils.loop import fit
from utils.recipe import Recipe, decoder_and_backbone
from utils.run import entry, start_run

from .gce import generalized_cross_entropy


class GceRecipe(Recipe):
    """L = ( CE(f(x_base), y_base) + GCE_q(f(x_novel), y_pseudo) ) / 2."""

    score = "novel_miou"

    def __init__(self, model, settings, q: float, feed=None, protocol=None):
        super().__init__(model, settings, feed, protocol)
        self.q = q

    def parameter_groups(self) -> list[dict]:
        return decoder_and_backbone(self.model, self.settings)

    def step(self, batch: dict, epoch: int) -> dict:
        base, novel = batch["base"], batch["novel"]
        on_base, on_novel = self.model.forward_sources([self.model.normalize(part["image"]) for part in (base, novel)])
        return {
            "base": cross_entropy(on_base.logits, base["label"]) / 2,
            "novel": generalized_cross_entropy(on_novel.logits, novel["pseudo"], self.q) / 2,
        }


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, ("ncdss",))
    data, folder = DiscoveryData.open(cfg), pseudo_folder(cfg)
    inputs, files = pseudo_files(folder, "novel", "base"), data.context.files
    with start_run(cfg, cfg.trained.stage, (cfg.method, "cluster.k"), inputs, files=files) as run:
        if run.finished:
            return
        images = FineTuningImages.open(data, folder, cfg.basic.batch_size)
        feed = {"base": images.base_source(), "novel": images.novel_source("novel", images.novel)}
        model = run.place(build_model(cfg.model, data.num_outputs))
        recipe = GceRecipe(model, cfg.basic, cfg.own.get("q", 0.7), feed, data.novel_protocol())
        run.finish(fit(recipe, cfg.basic, run))


if __name__ == "__main__":
    entry(main)
