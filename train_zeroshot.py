"""Steps 2 and 3 of zero-shot segmentation: segment unseen classes by their word vectors.

method=zs3     a generator maps word vectors to pixel features; the classifier of all classes trains on real features of
               images with seen classes only, and on generated features in the label layout of the other images
method=zs3_gc  ZS3 with a second generator for connected regions, a network on the graph of neighbouring regions
method=zs5     self-training: a new network trains on true seen labels and confident pseudo-labels of zs3 or zs3_gc
method=devise  baseline: the network predicts word vectors; a pixel takes the class with the nearest vector

reads   <output_dir>/<split>/step1 (train_base.py), for zs5 that of zs3 or zs3_gc; or official files
writes  <output_dir>/<split>/{zs3, zs3_gc, zs5, devise}/{last.pth, metrics.json, ...}; zs5 also labels/

    python train_zeroshot.py configs/demo/zeroshot.yaml method=zs3
    python train_zeroshot.py configs/zeroshot/voc.yaml split=unseen10 method=zs3 strict_unseen=true
"""

from utils.entry import answer

if __name__ == "__main__":  # before the imports below, which take seconds
    answer(__doc__, __file__, ("zs3",))

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from data.pseudo_labels import PseudoLabel, label_images
from data.zeroshot.builder import ZeroShotData
from losses.zs3 import (
    class_weights,
    cosine_loss,
    keep_most_certain,
    label_weight,
    mmd,
    weighted_cross_entropy,
)
from models.output import Output
from models.segmentation import build_network
from models.segmenter import load_segmenter
from models.weights import read_weights
from models.zeroshot.files import load_zero_shot_network
from models.zeroshot.generators import DeviseNet, ZeroShotNet
from models.zeroshot.graph import LabelGraph, label_graph
from models.zeroshot.pixels import ClassCells, class_cells, paste_unseen, shrink_label
from utils import dist
from utils.config.reader import load_config
from utils.config.zeroshot import ZeroShotConfig
from utils.errors import UserError
from utils.labels import IGNORE
from utils.loop import fit
from utils.measure.protocol import EvalProtocol
from utils.recipe import Recipe, decoder_and_backbone, own_keys, own_recipe
from utils.run import Run, entry, start_run
from utils.run_folder import require_stage


class Zs3Recipe(Recipe):
    """Generator G: L_G = MMD( G(w_c, z), f(x)[y = c] ) per image and seen class; one optimiser step each (`zs3.pace`).
    Classifier: L = weighted CE( classifier(features), y ); features are f(x) for images without unseen classes, else
    G(w_y, z) for every pixel.

    B images, C classes, D features, h w feature cells. f is the network of step 1, of which only the classifier trains.
    Its BatchNorm statistics are still updated (official code), unless zs3.bn=frozen.
    """

    score = None  # selecting an epoch would use labels of unseen classes

    def __init__(
        self,
        model: ZeroShotNet,
        cfg: ZeroShotConfig,
        unseen: tuple[int, ...],
        feed: dict[str, Any] | None = None,
        protocol: EvalProtocol | None = None,
        background: int | None = 0,
    ):
        super().__init__(model, cfg.zs3, feed, protocol)
        self.cfg, self.unseen, self.background = cfg, unseen, background
        self.weights = class_weights(len(model.vectors), unseen, cfg.zs3.unseen_weight).to(model.vectors.device)
        self.optimizers = {"generator": self._adam(model.generator)}
        if model.graph_generator is not None:
            self.optimizers["graph_generator"] = self._adam(model.graph_generator)
        self.totals = {name: self._total(optimizer) for name, optimizer in self.optimizers.items()}
        if dist.world_size() > 1 and self.settings.pace != "batch":
            raise UserError(
                f"zs3.pace={self.settings.pace}: the number of generator steps depends on the classes of the images, "
                "which differ between processes; with several processes use zs3.pace=batch"
            )

    def _adam(self, generator: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(generator.parameters(), lr=self.settings.generator_lr)

    @staticmethod
    def _total(optimizer: torch.optim.Optimizer) -> Callable[[list[torch.Tensor]], torch.Tensor]:
        """Sum of a generator's losses, zero for a process without any; its gradient is the mean over processes."""
        parameters = optimizer.param_groups[0]["params"]

        def total(losses: list[torch.Tensor]) -> torch.Tensor:
            return torch.stack(losses or [0 * parameter.sum() for parameter in parameters]).sum()

        return dist.data_parallel(total, parameters)

    def parameter_groups(self) -> list[dict[str, Any]]:
        classifier = self.model.network.classifier.parameters()
        return [{"name": "classifier", "params": list(classifier), "lr": self.settings.lr}]

    # ---- random draws

    def noise(self, cells: int, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """Noise [n, Z] for the cells of a class, or only for the `chosen` ones."""
        sizes = (cells if chosen is None else len(chosen), self.settings.noise_dim)
        draw = torch.rand if self.settings.noise == "uniform" else torch.randn
        return draw(sizes, device=self.weights.device)

    def choose(self, cells: int) -> torch.Tensor:
        """Indices of the cells of a class that the MMD compares: drawn with replacement, on the CPU."""
        return torch.randint(cells, (self.settings.samples,))

    # ---- a step

    def step(self, batch: dict, epoch: int) -> dict:
        image, label = self.model.normalize(batch["all"]["image"]), batch["all"]["label"]
        with torch.no_grad():
            real = self.model.network.features(image)
        small = shrink_label(label, real.shape[-2:]).cpu().numpy()  # the only host synchronisation of the step
        if self.cfg.strict_unseen:
            label = self.paste(small, label)
        with torch.autocast(label.device.type, enabled=False):
            features, nodes, losses = self.learn(real.float().permute(0, 2, 3, 1), small)
        logits = self.model.network.classify(features.permute(0, 3, 1, 2), label.shape[-2:])
        reported = {"classifier": self.cross_entropy(logits, label, len(label) * self.settings.accumulate)}
        if nodes:
            values, node_label = (torch.cat(parts) for parts in zip(*nodes, strict=True))
            node_logits = self.model.network.classifier(values[..., None, None])[..., 0, 0]
            reported["nodes"] = self.cfg.graph.weight * self.cross_entropy(node_logits, node_label)
        for name, values in losses.items():
            reported[name] = torch.stack(values).mean() if values else torch.zeros((), device=label.device)
        return reported

    def cross_entropy(self, logits: torch.Tensor, label: torch.Tensor, images: int = 0) -> torch.Tensor:
        """Cross-entropy, unseen classes weigh more, divided by the images of the global batch; by 1 for nodes."""
        total = dist.mean(label_weight(label, self.weights))
        return weighted_cross_entropy(logits, label, self.weights, images * dist.world_size() or 1, total)

    def paste(self, small: np.ndarray, label: torch.Tensor) -> torch.Tensor:
        """Strict training: rename a seen class to an unseen one in some images; changes `small`, copies `label`."""
        label = label.clone()
        for place, swap in enumerate(paste_unseen(small, self.unseen, self.cfg.strict.share, self.background)):
            if swap:
                small[place][small[place] == swap[0]] = swap[1]
                label[place].masked_fill_(label[place] == swap[0], swap[1])
        return label

    def learn(self, real: torch.Tensor, small: np.ndarray) -> tuple[torch.Tensor, list, dict[str, list[torch.Tensor]]]:
        """Train the generators; return the features that the classifier trains on.

        real [B, h, w, D], small uint8 [B, h, w] -> (features [B, h, w, D]; (features, label) of the nodes of each image
        with a graph; losses of the generators by name).
        """
        size, rows = real.shape, real.flatten(1, 2)
        layouts = class_cells(small, self.unseen)
        drawn = self.draw_cells(layouts)
        made, nodes = [], []
        if self.model.graph_generator is not None:  # a process without nodes must take part in the loss
            nodes.append((rows[0, :0], torch.zeros(0, dtype=torch.uint8, device=rows.device)))
        losses: dict[str, list[torch.Tensor]] = {name: [] for name in ("mmd", "graph_mmd")[: len(self.optimizers)]}
        waiting: dict[str, list[torch.Tensor]] = {name: [] for name in self.optimizers}
        for place, layout in enumerate(layouts):
            fake = layout.has_unseen or not self.settings.real_seen_features
            made.append(self.generate(layout, rows[place]) if fake else rows[place])
            if not layout.has_unseen:
                found = self.compare(layout, drawn[place], rows[place], waiting["generator"])
                losses["mmd"] += found
            if self.model.graph_generator is not None:
                graph = label_graph(small[place])
                if len(graph) > 1:  # a single node is left out (official code)
                    nodes.append(self.regions(graph, layout, rows[place], losses, waiting["graph_generator"]))
        if self.settings.pace == "batch":
            for name, found in waiting.items():
                self.advance(name, found)
        return torch.stack(made).view(size), nodes, losses

    def draw_cells(self, layouts: list[ClassCells]) -> list[tuple[list[torch.Tensor], torch.Tensor] | None]:
        """For each image without unseen classes: drawn positions among the cells of each class, and these cells on the
        device [classes, samples]; None for other images. One copy to the device serves the batch.
        """
        places = [None if x.has_unseen else [self.choose(len(cells)) for cells in x.cells] for x in layouts]
        flat = [
            torch.stack([torch.from_numpy(cells)[place] for cells, place in zip(x.cells, found, strict=True)])
            for x, found in zip(layouts, places, strict=True)
            if found
        ]
        if not flat:
            return [None for _ in layouts]
        sent = iter(torch.cat(flat).to(self.weights.device, non_blocking=True).split([len(part) for part in flat]))
        return [(found, next(sent)) if found else None for found in places]

    @torch.no_grad()
    def generate(self, layout: ClassCells, rows: torch.Tensor) -> torch.Tensor:
        """Generated features [hw, D] for all classes of the image, also seen ones; zeros where the label is 255."""
        device, fake = rows.device, torch.zeros_like(rows)
        if not layout.classes:
            return fake
        counts = [len(cells) for cells in layout.cells]
        noise = torch.cat([self.noise(count) for count in counts])
        which = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(device, non_blocking=True)
        cells = torch.cat([torch.from_numpy(part) for part in layout.cells]).to(device, non_blocking=True)
        fake[cells] = self.model.generator(self.vectors(layout.classes), noise, which)
        return fake

    def compare(self, layout: ClassCells, drawn: Any, rows: torch.Tensor, waiting: list) -> list[torch.Tensor]:
        """MMD of each class of an image; trains the generator per class, per image or per batch (zs3.pace)."""
        if drawn is None:
            return []
        places, cells = drawn
        vectors, real = self.vectors(layout.classes), rows[cells]
        if self.settings.pace == "sequential":
            found = []
            for number, place in enumerate(places):
                noise = self.noise(len(layout.cells[number]), place)
                fake = self.model.generator(vectors[number][None], noise)
                found.append(mmd(fake, real[number], self.settings.bandwidths))
                self.advance("generator", found[-1:])
            return [loss.detach() for loss in found]
        noise = torch.stack([self.noise(len(c), place) for c, place in zip(layout.cells, places, strict=True)])
        found = mmd(self.model.generator(vectors[:, None], noise), real, self.settings.bandwidths)
        if self.settings.pace == "image":
            self.advance("generator", [found.sum()])
        else:
            waiting.append(found.sum())
        return list(found.detach())

    def regions(
        self, graph: LabelGraph, layout: ClassCells, rows: torch.Tensor, losses: dict[str, list], waiting: list
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(features [N, D], label [N]) of the nodes of an image: real if no class is unseen, otherwise generated.

        Trains the graph generator on images without unseen classes.
        """
        options, device = self.cfg.graph, rows.device
        label = torch.from_numpy(graph.label).to(device, non_blocking=True)
        vectors = self.model.vectors[torch.where(label == IGNORE, 0, label).long()]  # official code: 255 has row 0
        adjacency = graph.adjacency(device, options.self_loops, options.normalize)
        fake = self.model.graph_generator(vectors, self.noise(len(graph)), adjacency)
        if layout.has_unseen:
            return fake.detach(), label
        real = graph.features(rows, options.features)
        loss = mmd(fake, real, self.settings.bandwidths)
        losses["graph_mmd"].append(loss.detach())
        if self.settings.pace == "batch":
            waiting.append(loss)
        else:
            self.advance("graph_generator", [loss])
        return real, label

    def advance(self, name: str, losses: list[torch.Tensor]) -> None:
        """One optimiser step of a generator on the sum of these losses; no step if no process has a loss."""
        if not dist.any_rank(bool(losses))[0]:
            return
        self.optimizers[name].zero_grad(set_to_none=True)
        self.totals[name](losses).backward()
        self.optimizers[name].step()

    def vectors(self, classes: list[int]) -> torch.Tensor:
        """Word vectors [K, E] of K classes."""
        return torch.stack([self.model.vectors[number] for number in classes])

    def state(self) -> dict:
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state(self, state: dict) -> None:
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])


class DeviseRecipe(Recipe):
    """DeViSE baseline: L = mean of 1 - cos( f(x), w_y ) over the labelled pixels of images with seen classes only."""

    score = None

    def parameter_groups(self) -> list[dict[str, Any]]:
        return decoder_and_backbone(self.model, self.settings)

    def step(self, batch: dict, epoch: int) -> dict:
        images, label = self.model.normalize(batch["seen"]["image"]), batch["seen"]["label"]
        return {"cosine": cosine_loss(self.model(images).logits, label, dist.labelled_pixels(label))}


class SelfTrainingRecipe(Recipe):
    """L = CE( f(x), y ) / B; y is the truth on images with seen classes only, else the pseudo-label."""

    score = None

    def parameter_groups(self) -> list[dict[str, Any]]:
        return decoder_and_backbone(self.model, self.settings)

    def step(self, batch: dict, epoch: int) -> dict:
        images, label = self.model.normalize(batch["labels"]["image"]), batch["labels"]["label"]
        count = len(label) * dist.world_size() * self.settings.accumulate
        pixels = dist.labelled_pixels(label)
        return {"labels": weighted_cross_entropy(self.model(images).logits, label, images=count, total=pixels)}


def label_unseen(cfg: ZeroShotConfig, data: ZeroShotData, labelled_by: Path, run: Run) -> Path:
    """Writes pseudo-labels of the training images that show an unseen class; returns their folder <stage>/labels.

    Finished labels of the same network and settings are kept.
    """
    labels, options = data.pseudo_labels(run.dir / "labels"), cfg.self_training
    made_from, settings = {"network": labelled_by}, options.model_dump(mode="json")
    if labels.finished(made_from, settings):
        return labels.folder
    file = read_weights(labelled_by)
    data.check_split(file.path, file.extra.get("config", {}))
    labeller = load_segmenter(file, cfg)
    samples, loader = data.pseudo_label_images()

    def label(output: Output, batch: dict) -> Iterator[PseudoLabel]:
        certainty = labeller.certainty(output)
        for logits, certain, index in zip(output.logits, certainty, batch["index"].tolist(), strict=True):
            kept = keep_most_certain(logits, data.unseen, options.percent, options.pooling, options.others)
            yield data.pseudo_label(samples[index], kept, certain)

    with labels.writing(made_from, settings) as add:
        label_images(run.place(labeller.model), label, loader, add, run)
    return labels.folder


def zs3_recipe(cfg: ZeroShotConfig, data: ZeroShotData, start: Path, run: Run) -> Recipe:
    """Step 2 (zs3, zs3_gc) on the network of step 1 in the file `start`."""
    network = build_network(cfg.model, data.num_classes, init="random")
    file = load_zero_shot_network(network, start)
    data.check_split(file.path, file.extra.get("config", {}))
    model = ZeroShotNet(network, data.embeddings, cfg.zs3, graph=cfg.method == "zs3_gc")
    model.start_classifier(cfg.zs3.classifier)
    feed = {"all": data.step2_source(cfg.zs3.batch_size)}
    return own_recipe(cfg, Zs3Recipe)(run.place(model), cfg, data.unseen, feed, data.protocol(), data.groups.background)


def zs5_recipe(cfg: ZeroShotConfig, data: ZeroShotData, start: Path, run: Run) -> Recipe:
    """Step 3 (zs5): pseudo-labels by the network of step 2 in the file `start`, and a new network to train on them."""
    folder = label_unseen(cfg, data, start, run)
    model = run.place(build_network(cfg.model, data.num_classes))
    feed = {"labels": data.step3_source(folder, cfg.step3.batch_size)}
    return own_recipe(cfg, SelfTrainingRecipe)(model, cfg.step3, feed, data.protocol())


def devise_recipe(cfg: ZeroShotConfig, data: ZeroShotData, start: None, run: Run) -> Recipe:
    """The recipe of the baseline: the network predicts word vectors; images and schedule of step 1."""
    vectors = data.embeddings
    model = run.place(DeviseNet(build_network(cfg.model, vectors.shape[1]), vectors))
    feed = {"seen": data.step1_source(cfg.step1.batch_size)}
    return own_recipe(cfg, DeviseRecipe)(model, cfg.step1, feed, data.protocol())


METHODS = {"zs3": zs3_recipe, "zs3_gc": zs3_recipe, "zs5": zs5_recipe, "devise": devise_recipe}
READS = {
    "zs3": ("zs3", "strict", "strict_unseen"),
    "zs3_gc": ("zs3", "graph", "strict", "strict_unseen"),
    "zs5": ("step3", "self_training"),
    "devise": ("step1",),
}


def start_file(cfg: ZeroShotConfig) -> Path | None:
    """The checkpoint that a method starts from: that of step 1; for zs5, the network that labels images."""
    if cfg.method == "devise":
        return None
    if cfg.method == "zs5":
        before = cfg.model_copy(update={"method": cfg.self_training.labels_by, "recipe": None})
        stage, made_by, _ = before.trained
        return cfg.labels_checkpoint or require_stage(cfg, stage, "last.pth", made_by)
    return cfg.step1_checkpoint or require_stage(cfg, "step1", "last.pth", "train_base.py CONFIG")


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, ("zs3",))
    if cfg.method == "step1":
        raise UserError("method=step1: this script trains the other methods; use method=zs3, or train_base.py")
    data, start = ZeroShotData.open(cfg), start_file(cfg)
    inputs = {"start": start} if start else {}
    with start_run(cfg, cfg.stage, (*READS[cfg.method], *own_keys(cfg)), inputs, files=data.context.files) as run:
        if run.finished:
            return
        recipe = METHODS[cfg.method](cfg, data, start, run)
        run.finish(fit(recipe, recipe.settings, run))


if __name__ == "__main__":
    entry(main)
