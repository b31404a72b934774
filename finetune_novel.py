"""Stages 3 and 5 of 6: learn base and novel classes together, from true base labels and clustering pseudo labels.

method=basic   all pseudo labels are trusted
method=eums    entropy-based uncertainty modelling and self-training: clean images train on their pseudo labels,
               unclean ones on what a moving-average teacher sees in a weakly augmented view

reads   <output_dir>/<split>/pseudo, and for EUMS <output_dir>/<split>/ranking
writes  <output_dir>/<split>/{basic,eums}/{best.pth, last.pth, metrics.json, ...}; EUMS also its reassigned lists

    python finetune_novel.py configs/demo/ncdss.yaml method=basic
    python finetune_novel.py configs/demo/ncdss.yaml method=eums
"""

from pathlib import Path

import torch
from torch import nn

from data.discovery import Views, read_novel_lists
from losses.cross_entropy import cross_entropy
from losses.eums import teacher_label
from models.deeplab import build_model
from models.teacher_student import TeacherStudent
from models.weights import load_weights
from utils import dist
from utils.checkpoint import read_list, write_list
from utils.config.reader import load_config
from utils.errors import UserError
from utils.log import log
from utils.loop import Recipe, fit
from utils.measure.evaluation import confusion, discovery_metrics, entropy_scores
from utils.measure.ranking import split_by_score
from utils.run import Run, entry, start_run
from utils.run_folder import require_stage
from utils.schedules import sigmoid_rampup


class BasicRecipe(Recipe):
    """L = ( CE(f(x_base), y_base) + CE(f(x_novel), y_pseudo) ) / 2, every image of `novel.txt` trusted."""

    score = "novel_miou"

    def __init__(self, views: Views, pseudo_dir: Path, run: Run):
        self.views, self.run, self.pseudo_dir = views, run, pseudo_dir
        self.pin = run.device.type == "cuda"
        self.settings = getattr(run.cfg, run.cfg.method)
        self.base_ids, self.novel_ids = read_novel_lists(pseudo_dir, views.lists)
        self.model = run.place(self.build())
        split = views.split
        validation = views.labelled(views.lists.val, split.full_map())
        self.val_loader = views.loader(validation, run.cfg.evaluation.batch_size, self.pin)
        base = views.labelled(self.base_ids, split.finetune_base_map(), train=True)
        self.base_source = views.source("base", base, self.settings, self.pin)
        self.current: dict = {}

    def build(self) -> nn.Module:
        return start_network(self.run.cfg, self.views)

    @property
    def network(self) -> nn.Module:
        """The network that is evaluated."""
        return self.model

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"decoder": self.network.decoder_parameters(), "backbone": self.network.backbone_parameters()}

    def novel_source(self, name: str, ids: list[str], strong: bool = False):
        dataset = self.views.pseudo_labelled(ids, self.pseudo_dir, train=True, strong=strong)
        return self.views.source(name, dataset, self.settings, self.pin)

    def sources(self, epoch: int) -> dict:
        if not self.current:
            self.current = {"base": self.base_source, "novel": self.novel_source("novel", self.novel_ids)}
        return self.current

    def step(self, batch: dict, epoch: int) -> dict:
        base, novel = batch["base"], batch["novel"]
        images = [self.network.normalize(source["image"]) for source in (base, novel)]
        on_base, on_novel = self.network.forward_sources(images)  # one pass per source: BatchNorm statistics differ
        return {
            "base": cross_entropy(on_base.logits, base["label"], pixels=dist.labelled_pixels(base["label"])) / 2,
            "novel": cross_entropy(on_novel.logits, novel["pseudo"], pixels=dist.labelled_pixels(novel["pseudo"])) / 2,
        }

    def output_classes(self, metrics: dict) -> list[tuple[int, str]]:
        return self.views.output_classes(metrics)

    def evaluate(self) -> dict:
        views, options = self.views, self.run.cfg.evaluation
        num_true = views.num_known + views.split.num_novel
        matrix = confusion(self.network, self.val_loader, self.run, num_true=num_true, num_pred=views.num_outputs)
        metrics = discovery_metrics(matrix, views.split.names, views.num_known, options.match, options.absent)
        return metrics | {"protocol": "network resolution"}


class EumsRecipe(BasicRecipe):
    """L = ( CE(q(x_base), y_base) + CE(q(x_clean), y_pseudo) ) / 2
           + w(e) CE(q(strong(x_unclean)), argmax k(weak(x_unclean))).

    q is the student, k its moving average. At `reassign_epochs` the clean list is ranked again by the student.
    """

    def __init__(self, views: Views, pseudo_dir: Path, split_dir: Path, run: Run):
        super().__init__(views, pseudo_dir, run)
        self.first_easy = read_list(split_dir / "easy_split.txt")
        self.easy, self.hard = self.first_easy, read_list(split_dir / "hard_split.txt")
        foreign = set(self.easy + self.hard) - set(self.novel_ids)
        if foreign:
            raise UserError(
                f"{split_dir}: image '{min(foreign)}' is not in {pseudo_dir / 'novel.txt'}; rank that folder's labels"
            )
        self.reassigned: list[int] = []

    def build(self) -> nn.Module:
        return TeacherStudent(start_network(self.run.cfg, self.views), momentum=self.settings.teacher_momentum)

    @property
    def network(self) -> nn.Module:
        return self.model.student

    def sources(self, epoch: int) -> dict:
        if epoch in self.settings.reassign_epochs and epoch not in self.reassigned:
            self.reassign(epoch)
        if not self.current:
            self.current = {"base": self.base_source, "easy": self.novel_source("easy", self.easy)}
            if self.settings.rampup_weight:
                self.current["hard"] = self.novel_source("hard", self.hard, strong=True)
        return self.current

    def reassign(self, epoch: int) -> None:
        """Keep the part of the original clean list that the student is most certain of; the rest joins the unclean."""
        dataset = self.views.pseudo_labelled(self.first_easy, self.pseudo_dir, train=False)
        loader = self.views.loader(dataset, self.run.cfg.ranking.batch_size, self.pin)
        scores = entropy_scores(self.network, loader, self.run, self.views.num_known)
        names = [sample.id for sample in dataset.samples]
        self.easy, moved = split_by_score(names, scores, self.settings.reassign_proportion)
        self.hard = [*self.hard, *moved]
        self.reassigned.append(epoch)
        self.current = {}
        if dist.is_main():
            write_list(self.run.dir / "easy_split.txt", self.easy)
            write_list(self.run.dir / "hard_split.txt", self.hard)
        log.info("epoch %d: reassigned, %d clean and %d unclean images", epoch + 1, len(self.easy), len(self.hard))

    def before_step(self) -> None:
        self.model.update_teacher()  # before the optimiser step: the teacher sees the student of the step before

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
        """The teacher's label of every pixel, uint8 [B, H, W]; 255 where it is less certain than `threshold`."""
        self.model.teacher.train(self.settings.teacher_mode == "train")
        return teacher_label(self.model.teacher(weak).logits, self.settings.threshold)

    def state(self) -> dict:
        return {"easy": self.easy, "hard": self.hard, "reassigned": self.reassigned}

    def load_state(self, state: dict) -> None:
        self.easy, self.hard, self.reassigned = state["easy"], state["hard"], state["reassigned"]


def start_network(cfg, views: Views) -> nn.Module:
    """A network of B+1+K outputs, from ImageNet as in the official code, unless a checkpoint is asked for."""
    model = build_model(cfg.model, views.num_outputs)
    path = start_checkpoint(cfg)
    if path:
        load_weights(model, path, only="backbone")
    return model


def start_checkpoint(cfg) -> Path | None:
    """The file whose backbone fine-tuning starts from: `init_from`, else with init_from_base the base model's."""
    if cfg.init_from or not getattr(cfg, cfg.method).init_from_base:
        return cfg.init_from
    return cfg.base_checkpoint or require_stage(cfg, "base", "best.pth", "train_base.py")


def finetune_stage(cfg) -> str:
    """Folder of this stage: basic or eums, with the reference's name behind it when the pseudo labels are one."""
    return cfg.method if cfg.cluster.assign == "kmeans" else f"{cfg.method}_{cfg.cluster.assign}"


def find_pseudo_dir(cfg) -> Path:
    """`pseudo_dir`, else the finished clustering stage."""
    if cfg.pseudo_dir:
        return cfg.pseudo_dir
    suffix = "" if cfg.cluster.assign == "kmeans" else f"_{cfg.cluster.assign}"
    return require_stage(cfg, f"pseudo{suffix}", "novel.txt", "cluster_pseudolabel.py").parent


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, ("ncdss",))
    if cfg.method == "base":
        raise UserError("method=base: this script fine-tunes; use method=basic or method=eums, or train_base.py")
    views = Views.open(cfg)
    pseudo_dir = find_pseudo_dir(cfg)
    inputs = {
        "novel": pseudo_dir / "novel.txt",
        "base": pseudo_dir / "base.txt",
        "pseudo_labels": pseudo_dir / "pseudo_labels",
    }
    if cfg.method == "eums":
        split_dir = cfg.split_dir or require_stage(cfg, "ranking", "easy_split.txt", "entropy_rank.py").parent
        inputs |= {"easy": split_dir / "easy_split.txt", "hard": split_dir / "hard_split.txt"}
    if start := start_checkpoint(cfg):
        inputs["init_from"] = start
    with start_run(cfg, finetune_stage(cfg), (cfg.method, "cluster.k"), inputs) as run:
        if run.finished:
            return
        eums = cfg.method == "eums"
        recipe = EumsRecipe(views, pseudo_dir, split_dir, run) if eums else BasicRecipe(views, pseudo_dir, run)
        run.finish(fit(recipe, recipe.settings, run))


if __name__ == "__main__":
    entry(main)
