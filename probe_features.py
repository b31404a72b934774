"""How good are features? A linear probe, clustering, or retrieval on a frozen network (MaskContrast, ICCV 2021).

mode=linear     a 1x1 convolution on the frozen network learns the classes; the best and the last epoch are scored
mode=kmeans     one prototype per image, or feature cells (kmeans.unit=patch), are clustered without any label
mode=retrieval  the object of a validation image takes the class of its nearest neighbour among labelled images

reads   checkpoint=FILE: a MaskContrast encoder, ours or official, a trained linear probe (scored at once), or the
        weights of a plain backbone (model.kind=backbone; saliency maps of the data then say what is foreground)
writes  <output_dir>/<name>/{linear, eval_linear, kmeans, retrieval}/{metrics.json, ...}; prototypes.svg;
        eval_linear/predictions/ with save_predictions=true

    python probe_features.py configs/maskcontrast/probe_voc.yaml mode=kmeans checkpoint=output/maskcontrast/last.pth
    python probe_features.py configs/demo/probe.yaml mode=linear model.kind=backbone
"""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from data.dataset import SegmentationDataset
from data.io import read_image
from data.probing import ProbeData
from losses.cross_entropy import cross_entropy
from models.probes import FeatureNetwork, LinearProbe, build_features, build_probe, is_probe, load_probe
from models.weights import read_weights
from utils import checkpoint, dist
from utils.config.probe import ProbeConfig
from utils.config.reader import load_config
from utils.errors import UserError
from utils.loop import Recipe, fit
from utils.measure.clustering import fit_minibatch, mask_prototypes
from utils.measure.crf import refine, require_crf
from utils.measure.evaluation import confusion, expectation_status, predict
from utils.measure.metrics import confusion_matrix, summarize
from utils.measure.probing import clustering_metrics, draw_prototypes, retrieval_metrics
from utils.measure.retrieval import cell_counts, majority_label, nearest, region_confusion
from utils.measure.scoring import image_confusions
from utils.report.published import PROBE_IOU
from utils.report.tables import print_metrics, print_probe
from utils.run import Run, entry, start_run

# ---- linear probe


class LinearRecipe(Recipe):
    """L = CE(W f(x) + b, y): W and b train, the network f is frozen and in evaluation mode."""

    score = "miou"

    def __init__(self, data: ProbeData, run: Run):
        self.data, self.run = data, run
        self.model = run.place(build_probe(run.cfg, data.num_classes))
        pin = run.device.type == "cuda"
        self.train_sources = {"train": data.source("train", data.train(), pin)}
        self.val_loader = data.loader(data.val("label"), pin)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"decoder": list(self.model.last.parameters())}

    def sources(self, epoch: int) -> dict:
        return self.train_sources

    def step(self, batch: dict, epoch: int) -> dict:
        image, label = self.model.normalize(batch["train"]["image"]), batch["train"]["label"]
        return {"ce": cross_entropy(self.model(image).logits, label, pixels=dist.labelled_pixels(label))}

    def output_classes(self, metrics: dict) -> list[tuple[int, str]]:
        return list(enumerate(self.data.classes))

    def evaluate(self) -> dict:
        """Masks at network resolution: only to choose an epoch."""
        num = self.data.num_classes
        matrix = confusion(self.model, self.val_loader, self.run, num_true=num, num_pred=num)
        return summarize(matrix, list(self.data.classes), {}, self.run.cfg.evaluation.absent)


def linear(data: ProbeData) -> dict:
    """Train a probe unless `checkpoint` is one, then score it at image size."""
    cfg = data.cfg
    if cfg.evaluation.crf:
        require_crf()
    if cfg.checkpoint and is_probe(cfg, cfg.checkpoint):
        return evaluate_linear(data, {"given file": cfg.checkpoint})
    with start_run(cfg, "linear", ("training",), source_files(cfg)) as run:
        if not run.finished:
            run.finish(fit(LinearRecipe(data, run), cfg.training, run) | {"protocol": "network resolution"})
        paths = {"best epoch": run.best, "last epoch": run.last}
    compared = cfg.evaluation.compare and not cfg.evaluation.crf  # the CRF takes longer than all the rest
    return evaluate_linear(data, paths if compared else {"best epoch": paths["best epoch"]})


def evaluate_linear(data: ProbeData, paths: dict[str, Path]) -> dict:
    """Metrics of the first probe; the others share its frozen network, and one pass serves all."""
    cfg, num = data.cfg, data.num_classes
    first, *others = paths.values()
    stage = "eval_linear_crf" if cfg.evaluation.crf else "eval_linear"
    with start_run(cfg, stage, ("evaluation", "save_predictions"), {"checkpoint": first}) as run:
        if not run.finished:
            probe = run.place(load_probe(cfg, first, num))
            heads = [probe.last, *(run.place(last_layer(path, probe)) for path in others)]
            matrices = dist.sum_(score_heads(data, probe, heads, run).to(run.device)).cpu()
            scores = [summarize(m, list(data.classes), {}, cfg.evaluation.absent) for m in matrices]
            compared = [
                {"model": name, "miou": found["miou"], "pixel_accuracy": found["pixel_accuracy"]}
                for name, found in zip(paths, scores, strict=True)
            ]
            protocol = "image size, CRF" if cfg.evaluation.crf else "image size"
            about = {"protocol": protocol, "images": len(data.val()), "checkpoint": str(first)}
            run.finish(scores[0] | {"compared": compared} | about)
        return checkpoint.read_json(run.dir / "metrics.json")


def last_layer(path: Path, probe: LinearProbe) -> nn.Conv2d:
    """The trained convolution of another probe on the same network."""
    state = read_weights(path).state
    head = nn.Conv2d(probe.last.in_channels, probe.last.out_channels, 1)
    head.load_state_dict({name: state[f"classifier.4.{name}"] for name in ("weight", "bias")})
    return head


def score_heads(data: ProbeData, probe: LinearProbe, heads: list[nn.Conv2d], run: Run) -> torch.Tensor:
    """Confusion matrices int64 [heads, C, C] at image size, of this process's images."""
    num, dataset = data.num_classes, data.val()
    save_to = run.dir / "predictions" if run.cfg.save_predictions else None
    total = torch.zeros(len(heads), num, num, dtype=torch.int64)
    workers = run.cfg.data.workers

    def forward(images: torch.Tensor) -> list[torch.Tensor]:
        embedding = probe.embed(probe.normalize(images))
        return [probe.classify(head, embedding, images.shape[-2:]) for head in heads]

    loader = data.loader(dataset, run.device.type == "cuda")
    # one image at a time keeps a core busy for seconds; processes, because the package holds the interpreter lock
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, workers), mp_context=context) as pool:
        each = pool.map if workers else map
        for batch, outputs in predict(forward, probe, loader, run, "evaluation"):
            indices = batch["index"].tolist()
            if run.cfg.evaluation.crf:
                images = [read_image(dataset.samples[index].image) for index in indices]
                maps = [label[None] for label in each(refine, outputs[0].float().cpu().numpy(), images)]
            else:
                maps = torch.stack([logits.argmax(1) for logits in outputs], 1).to(torch.uint8).cpu().numpy()
            total += image_confusions(dataset, indices, maps, num, num, save_to).sum(0)
    return total


# ---- objects: what clustering and retrieval look at


@dataclass(frozen=True)
class Objects:
    """One object per image: its prototype float32 [N, D], and pixels of each class outside and inside, [N, C, 2]."""

    prototypes: np.ndarray
    counts: np.ndarray

    def classes(self, excluded: tuple[int, ...] = (0,)) -> np.ndarray:
        """Majority class of each object, 0 for none."""
        return majority_label(self.counts[:, :, 1], excluded)


class Describer:
    """A frozen network that goes over data sets: features [B, D, h, w] and weights [B, S, S], positive on objects."""

    def __init__(self, data: ProbeData, run: Run):
        self.data, self.run = data, run
        self.network: FeatureNetwork = run.place(build_features(run.cfg))
        choice = run.cfg.foreground or ("head" if run.cfg.model.kind == "maskcontrast" else "saliency")
        if choice == "head" and not self.network.has_head:
            raise UserError("foreground=head: a plain backbone has no saliency head; use foreground=saliency")
        self.fields = ("saliency",) if choice == "saliency" else ()

    def walk(self, dataset: SegmentationDataset, title: str) -> Iterator[tuple[dict, torch.Tensor, torch.Tensor]]:
        loader = self.data.loader(dataset, self.run.device.type == "cuda")
        for batch, found in predict(
            lambda x: self.network(self.network.normalize(x)), self.network, loader, self.run, title
        ):
            masks = batch["saliency"].to(self.run.device).float() if self.fields else None
            yield batch, found.features.float(), found.weight if masks is None else masks

    def objects(self, dataset: SegmentationDataset, title: str) -> Objects:
        """Prototypes as in the official evaluation: un-normalised pixel embeddings, weighted by the saliency logit.

        Pixels are counted at network resolution when the data set reads labels, else at the size of the masks.
        """
        num, rows = self.data.num_classes, {}
        for batch, features, weight in self.walk(dataset, title):
            prototypes, region = mask_prototypes(features, weight), (weight > 0).to(torch.uint8)
            if "label" in batch:
                label = batch["label"].to(self.run.device)
                counts = torch.stack([confusion_matrix(r, t, 2, num) for r, t in zip(region, label, strict=True)])
            else:
                counts = image_confusions(dataset, batch["index"].tolist(), region[:, None].cpu().numpy(), num, 2)[:, 0]
            found = zip(prototypes.cpu().numpy(), counts.cpu().numpy(), strict=True)
            rows |= dict(zip(batch["index"].tolist(), found, strict=True))
        everywhere = {index: row for part in dist.gather(rows) for index, row in part.items()}
        prototypes, counts = zip(*(everywhere[index] for index in sorted(everywhere)), strict=True)
        return Objects(np.stack(prototypes), np.stack(counts))

    def patches(self, dataset: SegmentationDataset, most: int, title: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors [P, D] of at most so many feature cells of each object, and pixels of each class there, [P, C].

        Cells are drawn by seed and image. Without labels in the data set the counts are empty, [P, 0].
        """
        found: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for batch, features, weight in self.walk(dataset, title):
            cells = features.shape[-2:]
            covered = F.adaptive_avg_pool2d(weight.gt(0).float(), cells).flatten(1)
            inside = (covered > 0) & (covered >= covered.amax(1, keepdim=True).clamp(max=0.5))  # half, or the fullest
            vectors = F.normalize(features, dim=1).flatten(2).transpose(1, 2)  # [B, hw, D]
            if "label" in batch:
                label = batch["label"].to(self.run.device)
                counts = cell_counts(label, weight > 0, cells, self.data.num_classes).flatten(1, 2)
            else:
                counts = vectors.new_zeros(*vectors.shape[:2], 0)
            for place, index in enumerate(batch["index"].tolist()):
                rng = np.random.default_rng([self.run.cfg.seed, index])
                chosen = np.flatnonzero(inside[place].cpu().numpy())
                chosen = np.sort(rng.permutation(chosen)[:most])
                found[index] = vectors[place, chosen].cpu(), counts[place, chosen].cpu()
        everywhere = {index: row for part in dist.gather(found) for index, row in part.items()}
        vectors, counts = zip(*(everywhere[index] for index in sorted(everywhere)), strict=True)
        return torch.cat(vectors), torch.cat(counts)


# ---- clustering


def kmeans(data: ProbeData) -> dict:
    """Clusters of prototypes or cells, assigned to classes; the network runs once for all seeds (cells: twice)."""
    cfg = data.cfg
    by_patch = cfg.kmeans.unit == "patch"
    stage = "kmeans_patch" if by_patch else "kmeans"
    with start_run(cfg, stage, ("kmeans", "evaluation", "foreground"), source_files(cfg)) as run:
        if not run.finished:
            describer = Describer(data, run)
            dataset = data.val(*describer.fields)
            matrices = (cluster_patches if by_patch else cluster_images)(data, describer, dataset, run)
            metrics = clustering_metrics(matrices, data.classes, cfg.kmeans.match, cfg.evaluation.absent)
            protocol = f"image size, one vector per {cfg.kmeans.unit}"
            run.finish(metrics | {"protocol": protocol, "images": len(dataset), "checkpoint": source_name(cfg)})
        return checkpoint.read_json(run.dir / "metrics.json")


def cluster_images(data: ProbeData, describer: Describer, dataset: SegmentationDataset, run: Run) -> dict:
    """Confusion matrix int64 [C, 1 + K] of each seed: an object gets the number of its prototype's cluster."""
    objects = describer.objects(dataset, "prototypes")
    if dist.is_main():
        picture, seed = run.dir / "prototypes.svg", run.cfg.kmeans.seeds[0]
        draw_prototypes(picture, objects.prototypes, objects.classes(), data.classes, seed)
    k = number_of_clusters(data)
    matrices = {}
    for seed in run.cfg.kmeans.seeds:
        ids = fit_clusters(objects.prototypes, k, seed, run).kmeans.labels_
        matrices[seed] = region_confusion(objects.counts, ids + 1, k + 1)
    return matrices


def cluster_patches(data: ProbeData, describer: Describer, dataset: SegmentationDataset, run: Run) -> dict:
    """The same with a cluster for each feature cell of an object."""
    num, k = data.num_classes, number_of_clusters(data)
    vectors, _ = describer.patches(dataset, run.cfg.kmeans.patches, "patches")
    fitted = [fit_clusters(vectors.numpy(), k, seed, run) for seed in run.cfg.kmeans.seeds]
    total = torch.zeros(len(fitted), num, k + 1, dtype=torch.int64)
    for batch, features, weight in describer.walk(dataset, "clusters"):
        flat = F.normalize(features, dim=1).permute(0, 2, 3, 1).flatten(0, 2).cpu().numpy()
        ids = torch.stack([torch.from_numpy(assign(flat)) for assign in fitted])  # [M, Bhw]
        maps = paint(ids.view(len(fitted), len(weight), *features.shape[-2:]).transpose(0, 1) + 1, weight.cpu())
        total += image_confusions(dataset, batch["index"].tolist(), maps.numpy(), num, k + 1).sum(0)
    total = dist.sum_(total.to(run.device)).cpu().numpy()
    return dict(zip(run.cfg.kmeans.seeds, total, strict=True))


def fit_clusters(vectors: np.ndarray, k: int, seed: int, run: Run):
    options = run.cfg.kmeans
    settings = {"pca_dim": options.pca_dim, "whiten": options.whiten, "n_init": options.n_init}
    return fit_minibatch(vectors, k, seed=seed, batch_size=options.batch_size, **settings)


def number_of_clusters(data: ProbeData) -> int:
    """Besides background."""
    return data.cfg.kmeans.clusters or data.num_classes - 1


def paint(numbers: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Numbers of cells [B, M, h, w] at the pixels of the object, 0 elsewhere: uint8 [B, M, S, S]."""
    large = F.interpolate(numbers.to(torch.uint8), size=weight.shape[-2:], mode="nearest")
    return torch.where(weight[:, None] > 0, large, 0)


# ---- retrieval


def retrieval(data: ProbeData) -> dict:
    """Classes from the nearest labelled object or cell, over all classes and without `ignore`, from one pass."""
    cfg = data.cfg
    by_patch = cfg.retrieval.unit == "patch"
    stage = "retrieval_patch" if by_patch else "retrieval"
    with start_run(cfg, stage, ("retrieval", "evaluation", "foreground"), source_files(cfg)) as run:
        if not run.finished:
            describer = Describer(data, run)
            memory, val = (make("label", *describer.fields) for make in (data.memory, data.val))
            ignored = [data.classes.index(name) for name in cfg.retrieval.ignore]
            excluded = [(0,), (0, *ignored)] if ignored else [(0,)]
            find = retrieve_patches if by_patch else retrieve_images
            matrices, sizes = find(data, describer, memory, val, excluded, run)
            metrics = retrieval_metrics(
                matrices[0], matrices[1] if ignored else None, data.classes, ignored, cfg.evaluation.absent
            )
            protocol = f"network resolution, one vector per {cfg.retrieval.unit}, memory {cfg.retrieval.memory}"
            found = {"protocol": protocol, "images": len(val), "memory": sizes, "checkpoint": source_name(cfg)}
            run.finish(metrics | found)
        return checkpoint.read_json(run.dir / "metrics.json")


def retrieve_images(data, describer: Describer, memory, val, excluded, run: Run) -> tuple[list[np.ndarray], list[int]]:
    """(confusion matrix int64 [C, C], size of the memory) for each set of excluded classes."""
    known, asked = describer.objects(memory, "memory"), describer.objects(val, "queries")
    matrices, sizes = [], []
    for classes in (known.classes(out) for out in excluded):
        labelled = remembered(classes > 0, run)
        vectors = torch.from_numpy(known.prototypes[labelled])
        found = nearest(torch.from_numpy(asked.prototypes), vectors).numpy()
        matrices.append(region_confusion(asked.counts, classes[labelled][found], data.num_classes))
        sizes.append(len(vectors))
    return matrices, sizes


def retrieve_patches(data, describer: Describer, memory, val, excluded, run: Run) -> tuple[list[np.ndarray], list[int]]:
    """The same with a label for each feature cell of an object."""
    num = data.num_classes
    vectors, counts = describer.patches(memory, run.cfg.retrieval.patches, "memory")
    stores = []
    for classes in (majority_label(counts.numpy(), out) for out in excluded):
        labelled = remembered(classes > 0, run)
        stores.append([torch.as_tensor(v[labelled]).to(run.device) for v in (vectors.numpy(), classes)])
    total = torch.zeros(len(stores), num, num, dtype=torch.int64, device=run.device)
    for batch, features, weight in describer.walk(val, "queries"):
        flat = F.normalize(features, dim=1).permute(0, 2, 3, 1).flatten(0, 2)
        numbers = [classes[nearest(flat, known)].view(len(weight), *features.shape[-2:]) for known, classes in stores]
        label = batch["label"].to(run.device)
        for place, prediction in enumerate(paint(torch.stack(numbers, 1), weight).unbind(1)):
            total[place] += confusion_matrix(prediction, label, num, num)
    return list(dist.sum_(total).cpu().numpy()), [len(known) for known, _ in stores]


def remembered(labelled: np.ndarray, run: Run) -> np.ndarray:
    if not labelled.any():
        raise UserError(
            f"retrieval.memory={run.cfg.retrieval.memory}: no object of it covers a class; check the masks and the "
            "saliency"
        )
    return labelled


# ---- all modes


def source_files(cfg: ProbeConfig) -> dict[str, Path]:
    """The weights file that a stage depends on."""
    init = Path(cfg.model.init)
    path = cfg.checkpoint or (init if init.is_file() else None)
    return {"checkpoint": path} if path else {}


def source_name(cfg: ProbeConfig) -> str:
    return str(cfg.checkpoint or cfg.model.init)


MODES = {"linear": linear, "kmeans": kmeans, "retrieval": retrieval}


def main(argv: list[str] | None = None) -> int:
    cfg = load_config(argv, __doc__, __file__, ("probe",))
    metrics = MODES[cfg.mode](ProbeData.open(cfg))
    if dist.is_main():
        ours = (cfg.model.kind, cfg.model.backbone, cfg.data.dataset) == ("maskcontrast", "resnet50", "pascal")
        paper = PROBE_IOU.get((cfg.mode, metrics["protocol"])) if ours else None
        print_metrics(metrics, f"{cfg.folder}, {cfg.mode}, {metrics['protocol']}", paper)
        print_probe(metrics)
    return expectation_status(cfg.expected, metrics)


if __name__ == "__main__":
    entry(main)
