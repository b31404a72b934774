"""MaskContrast (Van Gansbeke et al., ICCV 2021): pixel embeddings from images and object masks, without labels.

Every pixel of an object in one view of an image is pulled towards the mean embedding of the object in another view, and
pushed away from the objects of other images. A second head learns the masks.

reads   images, saliency masks (one object mask per image), sets/trainaug.txt; weights of a backbone
writes  <output_dir>/pretrain/{last.pth, metrics.json, history.jsonl, ...}; probe_features.py reads last.pth

    python pretrain_contrast.py configs/demo/contrast.yaml         nine minutes on two CPU cores
"""

from utils.entry import answer

if __name__ == "__main__":  # before the imports below, which take seconds
    answer(__doc__, __file__, ("maskcontrast",))

from typing import Any

import torch

from data.contrast.builder import ContrastData
from losses.maskcontrast import balanced_bce, mean_directions, pixel_to_prototype
from models.contrast.encoder import SALIENT, ContrastModel, build_encoder, load_encoder
from models.output import Output
from utils import dist
from utils.config.contrast import ContrastConfig
from utils.config.reader import load_config
from utils.errors import UserError
from utils.loop import fit
from utils.recipe import Recipe, own_keys, own_recipe
from utils.run import Run, entry, start_run


class ContrastRecipe(Recipe):
    """L = CE(pixels of the query view against prototypes of the key view and of the bank) + BCE(saliency), sec. 3."""

    score = None  # no metric selects an epoch; the last model is the result

    @property
    def network(self) -> torch.nn.Module:
        return self.model.model_q

    def parameter_groups(self) -> list[dict[str, Any]]:
        trained = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        backbone = [p for name, p in trained.items() if name.startswith("backbone.")]
        rest = [p for name, p in trained.items() if not name.startswith("backbone.")]
        rate, factor = self.settings.training.lr, self.settings.training.backbone_lr_factor
        return [
            {"name": "decoder", "params": rest, "lr": rate},
            {"name": "backbone", "params": backbone, "lr": rate * factor},
        ]

    def before_step(self) -> None:
        self.model.update_key()

    def step(self, batch: dict, epoch: int) -> dict:
        views, encoder = batch["train"], self.model.model_q
        mask = views["query_saliency"]
        saliency, embedding = encoder(encoder.normalize(views["query"]))
        own, everyone = self.key_prototypes(views["key"], views["key_saliency"])
        contrast = pixel_to_prototype(embedding, mask, own, self.model.queue, self.settings.contrast.temperature)
        self.model.enqueue(everyone)  # after the logits: the bank holds earlier batches only
        losses = {"contrast": contrast.loss, "saliency": balanced_bce(saliency[:, 0], mask)}
        return losses | {"top1": contrast.top1, "top5": contrast.top5}

    @torch.no_grad()
    def key_prototypes(self, image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(prototypes of this process's masks [B, D], those of all processes [W B, D] in rank order); W processes.

        Images and masks are shuffled between processes before the key encoder, so that its BatchNorm does not see the
        batch of the query encoder (MoCo). Afterwards the prototypes are put back in order.
        """
        images, masks = dist.gather_rows(image), dist.gather_rows(mask)
        order = dist.broadcast_(torch.randperm(len(images), device=image.device))
        here = order.view(dist.world_size(), -1)[dist.rank()]
        encoder = self.model.model_k
        embedding = encoder(encoder.normalize(images[here])).embedding
        shuffled = dist.gather_rows(mean_directions(embedding, masks[here]))
        everyone = torch.empty_like(shuffled).index_copy_(0, order, shuffled)
        return everyone.view(dist.world_size(), len(image), -1)[dist.rank()], everyone

    def decide(self, output: Output) -> torch.Tensor:
        """Background 0 or object 1, predicted by the saliency head."""
        return (output.logits[:, 0] > SALIENT).long()

    def evaluate(self, run: Run) -> dict[str, Any]:
        """Saliency mIoU on the validation images; empty without validation images."""
        if self.protocol is None:
            return {}
        return {"saliency_miou": super().evaluate(run)["miou"], "images": len(self.protocol.images)}


def build_recipe(cfg: ContrastConfig, data: ContrastData, run: Run) -> ContrastRecipe:
    """The recipe with its network and images. Raises UserError if the batch does not divide over the processes."""
    shares, options = dist.world_size() * cfg.training.accumulate, cfg.contrast
    if cfg.training.batch_size % shares:
        raise UserError(
            f"training.batch_size={cfg.training.batch_size}: cannot be divided evenly among {dist.world_size()} "
            f"processes and {cfg.training.accumulate} parts"
        )
    encoder = load_encoder(cfg.model, cfg.init_from) if cfg.init_from else build_encoder(cfg.model, cfg.model.dim)
    model = ContrastModel(encoder, options.queue_size, options.momentum, options.freeze_layers)
    model = run.place(model, synchronize=False)  # instead, images are shuffled for the key encoder
    return own_recipe(cfg, ContrastRecipe)(model, cfg, {"train": data.source("train")}, data.protocol())


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, ("maskcontrast",))
    inputs = {"init_from": cfg.init_from} if cfg.init_from else {}
    with start_run(cfg, cfg.trained.stage, ("training", "contrast", *own_keys(cfg)), inputs) as run:
        if run.finished:
            return
        data = ContrastData.open(cfg)
        run.files = data.context.files
        recipe = build_recipe(cfg, data, run)
        run.finish(fit(recipe, cfg.training, run) | {"training_images": len(data.train_samples)})


if __name__ == "__main__":
    entry(main)
