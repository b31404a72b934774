"""Stages 3 and 5 of 6: train on base and novel classes, with true base labels and clustering pseudo-labels.

method=basic   all pseudo-labels are used
method=eums    entropy-based uncertainty modelling and self-training: clean images train on their pseudo-labels,
               unclean images on the predictions of a moving-average teacher for a weakly augmented view

reads   <output_dir>/<split>/pseudo, and for EUMS <output_dir>/<split>/ranking
writes  <output_dir>/<split>/{basic,eums}/{best.pth, last.pth, metrics.json, ...}; EUMS also writes its reassigned lists

    python finetune_novel.py configs/demo/discovery.yaml method=basic
    python finetune_novel.py configs/demo/discovery.yaml method=eums
"""

from utils.entry import answer

if __name__ == "__main__":  # before the imports below, which take seconds
    answer(__doc__, __file__, ("ncdss",))

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data.discovery.builder import DiscoveryData, FineTuningImages
from data.discovery.stages import pseudo_files, pseudo_folder, ranking_folder, start_model
from losses.cross_entropy import cross_entropy
from losses.eums import object_entropy, teacher_label
from models.discovery.teacher_student import TeacherStudent
from models.segmentation import build_network
from models.segmentation_files import load_network
from utils import dist
from utils.checkpoint import read_list
from utils.config.discovery import DiscoveryConfig, Eums
from utils.config.reader import load_config
from utils.errors import UserError
from utils.log import log
from utils.loop import fit
from utils.measure.protocol import EvalProtocol
from utils.measure.ranking import image_scores, split_by_score, write_split
from utils.recipe import LATEST, Recipe, decoder_and_backbone, own_keys, own_recipe
from utils.run import Run, entry, start_run
from utils.schedules import sigmoid_rampup


class BasicRecipe(Recipe):
    """L = ( CE(f(x_base), y_base) + CE(f(x_novel), y_pseudo) ) / 2, on all images of `novel.txt`."""

    score = "novel_miou"

    def parameter_groups(self) -> list[dict[str, Any]]:
        return decoder_and_backbone(self.network, self.settings)

    def step(self, batch: dict, epoch: int) -> dict:
        base, novel = batch["base"], batch["novel"]
        images = [self.network.normalize(source["image"]) for source in (base, novel)]
        on_base, on_novel = self.network.forward_sources(images)  # separate BatchNorm statistics per source
        return {
            "base": cross_entropy(on_base.logits, base["label"], pixels=dist.labelled_pixels(base["label"])) / 2,
            "novel": cross_entropy(on_novel.logits, novel["pseudo"], pixels=dist.labelled_pixels(novel["pseudo"])) / 2,
        }


class EumsRecipe(BasicRecipe):
    """L = ( CE(q(x_base), y_base) + CE(q(x_clean), y_pseudo) ) / 2
           + w(e) CE(q(strong(x_unclean)), argmax k(weak(x_unclean))).

    q is the student, k its moving average; `model` is a TeacherStudent. At `reassign_epochs` the student ranks the
    clean images again. `easy` and `hard` are the clean and the unclean images of `images`.
    """

    def __init__(
        self,
        model: TeacherStudent,
        settings: Eums,
        images: FineTuningImages | None = None,
        protocol: EvalProtocol | None = None,
        easy: list[str] | None = None,
        hard: list[str] | None = None,
    ):
        super().__init__(model, settings, protocol=protocol)
        self.images = images
        self.first_easy, self.easy, self.hard = list(easy or []), list(easy or []), list(hard or [])
        self.reassigned: list[int] = []

    @property
    def network(self) -> nn.Module:
        return self.model.student

    def sources(self, epoch: int, run: Run) -> Mapping[str, Any]:
        if epoch in self.settings.reassign_epochs and epoch not in self.reassigned:
            self.reassign(epoch, run)
        if "easy" not in self.feed:
            base = self.feed.get("base") or self.images.base_source()
            self.feed = {"base": base, "easy": self.images.novel_source("easy", self.easy)}
            if self.settings.rampup_weight:
                self.feed["hard"] = self.images.novel_source("hard", self.hard, strong=True)
        return self.feed

    def reassign(self, epoch: int, run: Run) -> None:
        """Keep the part of the original clean list with the lowest entropy of the student; the rest becomes unclean."""
        names, loader = self.images.to_rank(self.first_easy)
        known = self.images.data.num_known
        scores = image_scores(self.network, partial(object_entropy, num_known=known), loader, run, "entropy")
        clusters = self.images.clusters(names) if self.settings.reassign_balance == "cluster" else None
        self.easy, moved = split_by_score(names, scores, self.settings.reassign_proportion, clusters)
        self.hard = [*self.hard, *moved]
        self.reassigned.append(epoch)
        self.feed = {name: source for name, source in self.feed.items() if name == "base"}
        write_split(run.dir, self.easy, self.hard, names, scores)
        log.info("epoch %d: reassigned, %d clean and %d unclean images", epoch + 1, len(self.easy), len(self.hard))

    def before_step(self) -> None:
        self.model.update_teacher()  # before the optimiser step, so with the student of the previous step

    def step(self, batch: dict, epoch: int) -> dict:
        base, easy, hard = batch["base"], batch["easy"], batch.get("hard")
        normalize = self.network.normalize
        views = [base["image"], easy["image"], *([hard["strong"]] if hard else [])]
        on_base, on_easy, *on_hard = self.network.forward_sources([normalize(view) for view in views])
        losses = {
            "base": cross_entropy(on_base.logits, base["label"], pixels=dist.labelled_pixels(base["label"])) / 2,
            "easy": cross_entropy(on_easy.logits, easy["pseudo"], pixels=dist.labelled_pixels(easy["pseudo"])) / 2,
        }
        if hard:
            target = self.teacher_target(normalize(hard["image"]))
            weight = self.settings.rampup_weight * sigmoid_rampup(epoch, self.settings.rampup_length)
            consistency = cross_entropy(on_hard[0].logits, target, pixels=dist.labelled_pixels(target))
            losses["consistency"] = weight * consistency
        return losses

    @torch.no_grad()
    def teacher_target(self, weak: torch.Tensor) -> torch.Tensor:
        """The teacher's label of each pixel, int64 [B, H, W]; 255 where its confidence is below `threshold`."""
        self.model.teacher.train(self.settings.teacher_mode == "train")
        return teacher_label(self.model.teacher(weak).logits, self.settings.threshold)

    def state(self) -> dict:
        return {"easy": self.easy, "hard": self.hard, "reassigned": self.reassigned}

    def load_state(self, state: dict) -> None:
        self.easy, self.hard, self.reassigned = state["easy"], state["hard"], state["reassigned"]


def start_network(cfg: DiscoveryConfig, num_outputs: int, start: Path | None, part: str) -> nn.Module:
    """A network of B+1+K outputs with an ImageNet trunk (official), or with `part` of the network in a file."""
    model = build_network(cfg.model, num_outputs)
    if start:
        load_network(model, start, only=part)
    return model


def read_ranking(folder: Path, images: FineTuningImages) -> dict[str, list[str]]:
    """Clean and unclean images of a ranking folder. UserError if they were ranked on other pseudo-labels."""
    easy, hard = read_list(folder / "easy_split.txt"), read_list(folder / "hard_split.txt")
    foreign = set(easy + hard) - set(images.novel)
    if foreign:
        listed = images.pseudo_dir / "novel.txt"
        raise UserError(f"{folder}: image '{min(foreign)}' is not in {listed}; rank the pseudo-labels of that folder")
    return {"easy": easy, "hard": hard}


def build_recipe(cfg: DiscoveryConfig, data: DiscoveryData, pseudo_dir: Path, network: nn.Module, run: Run) -> Recipe:
    """The recipe of `cfg.method` with its network, images and validation protocol."""
    settings = getattr(cfg, cfg.method)
    images = FineTuningImages.open(data, pseudo_dir, settings.batch_size)
    protocol = data.novel_protocol()
    if cfg.method == "basic":
        feed = {"base": images.base_source(), "novel": images.novel_source("novel", images.novel)}
        recipe = own_recipe(cfg, BasicRecipe)(run.place(network), settings, feed, protocol)
    else:
        both = TeacherStudent(network, settings.teacher_momentum, from_scratch=not cfg.eums.init_from_basic)
        model = run.place(both)
        ranking = read_ranking(ranking_folder(cfg), images)
        recipe = own_recipe(cfg, EumsRecipe)(model, settings, images, protocol, **ranking)
    if data.is_unknown:
        recipe.score = LATEST  # by base classes alone, the epoch that learned the clusters least would win
    return recipe


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, ("ncdss",))
    if cfg.method == "base":
        raise UserError("method=base: this script fine-tunes; use method=basic or method=eums, or train_base.py")
    data, pseudo_dir = DiscoveryData.open(cfg), pseudo_folder(cfg)
    start, part = start_model(cfg)
    inputs = pseudo_files(pseudo_dir, "novel", "base")
    if cfg.method == "eums":
        split_dir = ranking_folder(cfg)
        inputs |= {"easy": split_dir / "easy_split.txt", "hard": split_dir / "hard_split.txt"}
    if start:
        inputs["init_from"] = start
    reads = (cfg.method, "cluster.k", *own_keys(cfg))
    with start_run(cfg, cfg.trained.stage, reads, inputs, files=data.context.files) as run:
        if run.finished:
            return
        network = start_network(cfg, data.num_outputs, start, part)
        recipe = build_recipe(cfg, data, pseudo_dir, network, run)
        run.finish(fit(recipe, recipe.settings, run))


if __name__ == "__main__":
    entry(main)
