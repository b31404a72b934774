"""Weak-shot segmentation with a mask transformer: base classes have masks, novel classes only image tags.

method=single      train proposals on single images; novel proposals together cover all pixels that are not base
method=simformer   adds image pairs: SimNet learns pixel similarity on base classes and teaches the novel score maps
stage=pseudo       label the training images with one of these networks, or with method=clusters by class discovery
method=retrain     train all classes on these pseudo-labels
method=supervised  train all classes on their masks: the upper bound, or a plain MaskFormer

reads   images, masks and tags of data.train_list; for retrain <output_dir>/<split>/<labels_by>_pseudo, for clusters
        <output_dir>/<split>/pseudo (cluster_pseudolabel.py)
writes  <output_dir>/<split>/<method>/{last.pth, metrics.json, ...}, <output_dir>/<split>/<method>_pseudo/labels

    python train_weakshot.py configs/demo/weakshot.yaml
    python train_weakshot.py configs/demo/weakshot.yaml stage=pseudo
    python train_weakshot.py configs/weakshot/coco.yaml split=split2 method=retrain
"""

from utils.entry import answer

if __name__ == "__main__":  # before the imports below, which take seconds
    answer(__doc__, __file__, ("simformer",))

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from data.pseudo_labels import CLUSTERED, PseudoLabel, label_images
from data.weakshot.builder import PSEUDO, WeakShotData, label_folder, labelled_by
from data.weakshot.shown_masks import SHOWN, Proposals, write_proposals
from losses.maskformer import Targets, class_loss, find_targets, mask_loss, match, shrink
from losses.simformer import (
    SMALL,
    at_points,
    common_class,
    complementary_loss,
    count_pairs,
    distillation_loss,
    draw_labelled,
    draw_points,
    either,
    new_queue,
    point_scores,
    push_counts,
    same_label,
    score_similarity,
    shares_class,
    similarity_loss,
)
from models.segmenter import load_segmenter
from models.weakshot.mask_scores import surest
from models.weakshot.maskformer import MaskOutput, maskformer_groups
from models.weakshot.maskformer_files import load_maskformer
from models.weakshot.simformer import WeakShotNet, build_weak_shot, decide
from models.weights import load_strict, read_weights
from utils import dist
from utils.config.reader import load_config
from utils.config.weakshot import WeakShotConfig, require_sense
from utils.errors import UserError
from utils.labels import IGNORE
from utils.loop import fit
from utils.measure.confusion import eval_mode, respond
from utils.measure.protocol import EvalProtocol
from utils.recipe import Recipe, own_keys, own_recipe
from utils.run import Run, entry, start_run

Images = dict[str, torch.Tensor]  # "image", "label", "padding", "present", of data/weakshot/crops.py
STRIDE = 4  # pixels per cell over which the confidence of pseudo-labels is averaged


class MaskFormerRecipe(Recipe):
    """L = sum over decoder layers of CE(classes) + 20 focal(masks) + dice(masks), each after an assignment of proposals
    to the classes of the image.

    B images, Q proposals, K classes, L layers, h w cells at stride 4. The last network is the result: selecting an
    epoch would use masks of novel classes.
    """

    score = None
    smallest_batch = 1
    on_host = frozenset({"present", "partner_present"})

    def __init__(
        self,
        model: WeakShotNet,
        cfg: WeakShotConfig,
        novel: tuple[int, ...],
        feed: dict[str, Any] | None = None,
        protocol: EvalProtocol | None = None,
    ):
        super().__init__(model, cfg.training, feed, protocol)
        self.cfg, self.novel, self.num_classes = cfg, novel, model.network.num_classes
        self.base = tuple(number for number in range(self.num_classes) if number not in novel)

    @property
    def network(self) -> torch.nn.Module:
        return self.model.network

    @property
    def masked(self) -> tuple[int, ...]:
        """Classes whose masks are used."""
        return tuple(range(self.num_classes))

    def parameter_groups(self) -> list[dict[str, Any]]:
        return maskformer_groups(self.model, self.settings)

    def decide(self, output: MaskOutput, size: tuple[int, int] | None = None) -> torch.Tensor:
        return decide(output, size)

    # ---- a step

    def step(self, batch: dict[str, dict], epoch: int) -> dict[str, torch.Tensor]:
        return self.propose(batch["images"])[1]

    def propose(self, images: Images) -> tuple[MaskOutput, dict[str, torch.Tensor]]:
        """Output of the network for images [B, 3, H, W], and the losses on single images."""
        targets = find_targets(images["label"], images["present"], self.masked, images["padding"])
        output = self.model(self.model.normalize(images["image"]))
        with torch.autocast(self.device.type, enabled=False):
            return output, self.losses(output, targets)

    def losses(self, output: MaskOutput, targets: Targets) -> dict[str, torch.Tensor]:
        """Weighted losses of classes and masks, summed over layers, normalised over the global batch."""
        weights = self.cfg.losses
        official = weights.matcher == "official"
        assigned = match(output.class_logits, output.mask_logits, targets, official=official)  # [L, T]
        matched, proposals = (assigned >= 0).sum(1), output.class_logits[0, ..., 0].numel()
        total = dist.mean(matched + weights.no_object * (proposals - matched))
        classes = class_loss(output.class_logits, targets, assigned, weights.no_object, total)
        num_masks = self.mean_number(len(targets.masked)).clamp(min=1 / dist.world_size())
        focal, dice = mask_loss(output.mask_logits, targets, assigned, num_masks)
        return {
            "cls": weights.cls * classes.sum(),
            "focal": weights.focal * focal.sum(),
            "dice": weights.dice * dice.sum(),
            **self.tag_losses(output, targets, assigned),
        }

    def tag_losses(self, output: MaskOutput, targets: Targets, assigned: torch.Tensor) -> dict[str, torch.Tensor]:
        """Additional losses for classes without masks."""
        return {}

    def mean_number(self, count: int) -> torch.Tensor:
        """Mean of a number over processes."""
        return dist.mean(torch.full((), count, device=self.device))

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


class SingleImageRecipe(MaskFormerRecipe):
    """L = MaskFormer losses with masks of base classes only + CompLoss: 20 focal(U, G) + dice(U, G) in each layer.

    U is the union of the proposals of novel classes, G the pixels that are not base.
    """

    @property
    def masked(self) -> tuple[int, ...]:
        return self.base

    def tag_losses(self, output: MaskOutput, targets: Targets, assigned: torch.Tensor) -> dict[str, torch.Tensor]:
        options = self.cfg.complement
        if not options.weight:
            return {}
        weak = sum(count > masks for count, masks in zip(targets.counts, targets.mask_counts, strict=True))
        loss = complementary_loss(
            output.mask_logits,
            targets,
            assigned,
            floor=options.floor,
            unlabelled=options.unlabelled,
            images=self.mean_number(weak) + SMALL / dist.world_size(),
        )
        return {"comp": options.weight * loss.sum()}


class SimFormerRecipe(SingleImageRecipe):
    """L = loss of SingleImageRecipe
    + SimLoss: BCE(SimNet(f_i, f_j), same class) on cross-image point pairs, at least one of them base
    + DistLoss: distance between the cosine of score maps and SimNet's output on points that are not base.

    P pairs of images, N points per image, h w cells, D width. All processes draw the same random numbers and use their
    shares, so results do not depend on the number of processes.
    """

    smallest_batch = 2

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        shares, pairs = dist.world_size() * self.settings.accumulate, self.settings.batch_size / 2
        if pairs % shares:
            raise UserError(
                f"training.batch_size={self.settings.batch_size}: {pairs:g} pairs of images cannot be divided evenly "
                f"among {dist.world_size()} processes and {self.settings.accumulate} parts; a pair is two images"
            )
        self.queue, self.drawn = new_queue(), 0
        trusted = torch.zeros(IGNORE + 1, dtype=torch.bool)
        trusted[list(self.base)] = True
        self.is_base = trusted.to(self.device)  # [256], indexed by label
        self.generator = torch.Generator(self.device)

    def step(self, batch: dict[str, dict], epoch: int) -> dict[str, torch.Tensor]:
        images = side_by_side(batch["pairs"])
        present = in_pairs(images["present"]).bool()  # [P, 2, K], on the host
        shares = shares_class(present & self.among(self.novel))
        distil = dist.any_rank(bool(self.cfg.distillation.weight and shares.any()))[0]
        shares = shares.to(self.device, non_blocking=True)
        output, losses = self.propose(images)
        with torch.autocast(self.device.type, enabled=False):
            cells = output.features.shape[-2:]
            label, padding = (in_pairs(shrink(images[name], cells)) for name in ("label", "padding"))
            if self.cfg.similarity.weight:
                losses["sim"] = self.learn_similarity(output, label, padding.bool(), present)
            if distil:
                losses["dist"] = self.distil(output, label, padding.bool(), shares)
        return losses

    def learn_similarity(
        self, output: MaskOutput, label: torch.Tensor, padding: torch.Tensor, present: torch.Tensor
    ) -> torch.Tensor:
        """SimNet's loss on pairs of points of two images, at least one of them base; label, padding [P, 2, h, w]."""
        options, (pairs, _, *cells) = self.cfg.similarity, label.shape
        features = in_pairs(output.features.float())
        shown = (present & self.among(self.base)).to(self.device, non_blocking=True)
        common = common_class(shown, self.draw(pairs, self.num_classes))
        noise = self.draw(pairs, 2, 2, *cells).transpose(0, 1)
        points = draw_labelled(label, padding, self.is_base, common, options.points, noise)
        found = label.flatten(2).gather(2, points)
        same, valid = same_label(found), either(self.is_base[found.long()])
        self.queue = push_counts(self.queue, dist.sum_(count_pairs(same)))
        embedding = at_points(features.detach() if options.detach else features, points)
        total = dist.mean(valid.sum()).clamp(min=SMALL)
        return options.weight * similarity_loss(self.model.simnet.pairs(embedding), same, valid, self.queue, total)

    def distil(
        self, output: MaskOutput, label: torch.Tensor, padding: torch.Tensor, shares: torch.Tensor
    ) -> torch.Tensor:
        """Distil SimNet into the score maps of novel classes, on points that are not base, of pairs that share one."""
        options = self.cfg.distillation
        region = ~self.is_base[label.long()]
        region &= ~padding if not options.padding else True
        region &= (label != IGNORE) | padding if not options.unlabelled else True
        points = draw_points(region, options.points, self.draw(*region.shape))
        with torch.set_grad_enabled(not options.detach):
            teacher = self.model.simnet.pairs(at_points(in_pairs(output.features.float()), points)).sigmoid()
        scores = point_scores(
            in_pairs(output.class_logits[-1]),
            at_points(in_pairs(output.mask_logits[-1]), points),
            None if options.classes == "all" else torch.tensor(self.novel).to(self.device, non_blocking=True),
            options.student,
        )
        student = score_similarity(scores, options.pairing)
        valid = either(region.flatten(2).gather(2, points)) if options.valid else None
        return options.weight * distillation_loss(student, teacher, shares, options.function, valid)

    def among(self, classes: tuple[int, ...]) -> torch.Tensor:
        """bool [K] on the CPU, true for these classes."""
        chosen = torch.zeros(self.num_classes, dtype=torch.bool)
        chosen[list(classes)] = True
        return chosen

    def draw(self, pairs: int, *shape: int) -> torch.Tensor:
        """This process's share of uniform random numbers in [0, 1), [pairs, ...]."""
        self.generator.manual_seed((self.cfg.seed << 32) + self.drawn)
        self.drawn += 1
        size = (pairs * dist.world_size(), *shape)
        return torch.rand(size, generator=self.generator, device=self.device)[dist.rank() :: dist.world_size()]

    def state(self) -> dict:
        return {"queue": self.queue.cpu(), "drawn": self.drawn}

    def load_state(self, state: dict) -> None:
        self.queue, self.drawn = state["queue"], state["drawn"]


def side_by_side(batch: Images) -> Images:
    """Turn a batch of P pairs into 2 P images; each image is followed by its partner."""
    names = ("image", "label", "padding", "present")
    return {name: torch.stack([batch[name], batch[f"partner_{name}"]], 1).flatten(0, 1) for name in names}


def in_pairs(values: torch.Tensor) -> torch.Tensor:
    """[2 P, ...] -> [P, 2, ...]."""
    return values.unflatten(0, (-1, 2))


# ---- stages


def weak_recipe(cfg: WeakShotConfig, data: WeakShotData, run: Run) -> Recipe:
    """The recipe of single or simformer: masks of base classes, tags of novel classes."""
    pairs, batch = cfg.method == "simformer", cfg.training.batch_size
    model = start_network(cfg, data, run, pairs=pairs and bool(cfg.similarity.weight))
    if pairs:
        method = own_recipe(cfg, SimFormerRecipe)
        recipe = method(model, cfg, data.novel, protocol=data.protocol())  # first: it checks the batch size
        recipe.feed = {"pairs": data.source(batch // 2, pairs=True)}
        return recipe
    return own_recipe(cfg, SingleImageRecipe)(model, cfg, data.novel, {"images": data.source(batch)}, data.protocol())


def supervised_recipe(cfg: WeakShotConfig, data: WeakShotData, run: Run) -> Recipe:
    source = data.supervised_source(cfg.training.batch_size)
    network = start_network(cfg, data, run)
    return own_recipe(cfg, MaskFormerRecipe)(network, cfg, data.novel, {"images": source}, data.protocol())


def retrain_recipe(cfg: WeakShotConfig, data: WeakShotData, run: Run) -> Recipe:
    source = data.retraining_source(label_folder(cfg), cfg.training.batch_size)
    network = start_network(cfg, data, run)
    return own_recipe(cfg, MaskFormerRecipe)(network, cfg, data.novel, {"images": source}, data.protocol())


def start_network(cfg: WeakShotConfig, data: WeakShotData, run: Run, pairs: bool = False) -> WeakShotNet:
    """A new network, or that of `init_from`; its class layer and SimNet are loaded if they fit."""
    vectors = data.vectors if cfg.model.classes == "words" else None
    model = build_weak_shot(cfg.model, data.num_classes, pairs, "random" if cfg.init_from else None, vectors)
    if cfg.init_from:
        weights = load_maskformer(model.network, cfg.init_from, other_classes=True)
        if model.simnet is not None and weights.simnet:
            load_strict(model.simnet, weights.simnet, weights.path)
    return run.place(model)


@torch.inference_mode()
def propose(network: torch.nn.Module, image: torch.Tensor, run: Run) -> Proposals:
    """The most confident proposals for an image uint8 [3, H, W], for report.py."""
    with eval_mode(network), run.autocast():
        return surest(respond(network, image[None].to(run.device)), SHOWN)


def label_by_network(cfg: WeakShotConfig, data: WeakShotData, start: Path, run: Run) -> dict[str, Any]:
    """Label all training images with a network; write to <stage>/labels and return the quality."""
    file = read_weights(start)
    data.check_split(start, file.extra.get("config", {}))
    views = {name: getattr(cfg.pseudo, name) for name in ("tta", "tta_sizes", "tta_longest")}
    labeller = load_segmenter(file, cfg.model_copy(update={"evaluation": cfg.evaluation.model_copy(update=views)}))

    def label(output: MaskOutput, batch: dict) -> Iterator[PseudoLabel]:
        height, width = batch["size"][0].tolist()  # equal for all images of a batch
        maps = labeller.decide(output, (height, width)).cpu().numpy()
        certainty = labeller.certainty(output, (-(-height // STRIDE), -(-width // STRIDE)))
        for index, prediction, certain in zip(batch["index"].tolist(), maps, certainty, strict=True):
            yield data.pseudo_label(index, prediction, certain)

    labels, settings = data.pseudo_labels(run.dir / PSEUDO), cfg.pseudo.model_dump(mode="json")
    with labels.writing({"network": start}, settings) as add:
        label_images(run.place(labeller.model), label, data.pseudo_label_images(), add, run)
    return data.pseudo_quality(labels.folder)


def label_by_clusters(cfg: WeakShotConfig, data: WeakShotData, start: Path, run: Run) -> dict[str, Any]:
    """Turn the clusters of class discovery into pseudo-labels, named by image tags; return their quality."""
    labels, settings = data.pseudo_labels(run.dir / PSEUDO), cfg.pseudo.model_dump(mode="json")
    masks = data.cluster_masks(start)
    with labels.writing({"clusters": start / CLUSTERED}, settings) as add:
        for made in data.cluster_labels(masks):
            add(made)
    return data.pseudo_quality(labels.folder)


METHODS: dict[str, Callable[..., Recipe]] = {
    "single": weak_recipe,
    "simformer": weak_recipe,
    "retrain": retrain_recipe,
    "supervised": supervised_recipe,
}
READS = {
    "single": ("complement",),
    "simformer": ("complement", "similarity", "distillation"),
    "retrain": ("retraining",),
    "supervised": (),
}


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, ("simformer",))
    require_sense(cfg)
    data = WeakShotData.open(cfg)
    files = data.context.files
    if cfg.stage == "pseudo":
        start, by_clusters = labelled_by(cfg), cfg.method == "clusters"
        label = label_by_clusters if by_clusters else label_by_network
        inputs = {"clusters": start / CLUSTERED} if by_clusters else {"network": start}
        with start_run(cfg, cfg.stage_folder, ("pseudo", "evaluation"), inputs, files=files) as run:
            if not run.finished:
                run.finish(label(cfg, data, start, run))
        return
    inputs = {"init_from": cfg.init_from} if cfg.init_from else {}
    inputs |= {"labels": label_folder(cfg)} if cfg.method == "retrain" else {}
    reads = ("training", "losses", *READS[cfg.method], *own_keys(cfg))
    with start_run(cfg, cfg.stage_folder, reads, inputs, files=files) as run:
        if not run.finished:
            recipe = METHODS[cfg.method](cfg, data, run)
            metrics = fit(recipe, cfg.training, run)
            if dist.is_main():
                write_proposals(run.dir, data, lambda image: propose(recipe.network, image, run))
            run.finish(metrics)


if __name__ == "__main__":
    entry(main)
