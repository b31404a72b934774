"""Evaluate frozen features by a linear probe, by clustering, or by retrieval (MaskContrast, ICCV 2021).

mode=linear     train a 1x1 convolution on the frozen network; score the best and the last epoch
mode=kmeans     cluster one prototype per image, or feature cells (kmeans.unit=patch), without labels
mode=retrieval  label the object of each validation image with the class of its nearest labelled neighbour

reads   checkpoint=FILE: a MaskContrast encoder, ours or official, a trained linear probe (scored at once), or the
        weights of a plain backbone (model.kind=backbone; the foreground is then given by the saliency maps of the data)
writes  <output_dir>/<name>/{linear, eval_linear, kmeans, retrieval}/metrics.json, confusion.npy,
        kmeans/{assignments.json, prototypes.svg}, retrieval/{memory.json, neighbours.json};
        with save_predictions=true predictions/*.png, and kmeans/clusters/*.png

    python probe_features.py configs/contrast/probe_voc.yaml mode=kmeans checkpoint=output/maskcontrast/last.pth
    python probe_features.py configs/demo/probe.yaml mode=linear model.kind=backbone
"""

from utils.entry import answer
from utils.report.scores import print_probe, show_probe

if __name__ == "__main__":  # before the imports below, which take seconds
    answer(__doc__, __file__, ("probe",), show=show_probe)

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from data.contrast.probes import ProbeData
from data.dataset import SegmentationDataset
from data.io import read_image, write_array
from data.predictions import map_writer, relabel
from losses.cross_entropy import cross_entropy
from models.contrast.probes import LinearProbe, build_features, build_probe, is_probe, load_probe
from models.segmentation_files import CLASSIFIER
from models.weights import read_weights
from utils import checkpoint, dist
from utils.config.probe import ProbeConfig
from utils.config.reader import load_config
from utils.errors import UserError
from utils.labels import ignored, is_wide
from utils.loop import fit
from utils.measure.clustering import Quantizer, fit_minibatch
from utils.measure.confusion import Maps, Save, count, predict
from utils.measure.crf import refine, require_crf
from utils.measure.features import FeatureExtractor, cell_vectors, paint
from utils.measure.metrics import confusion_of_step
from utils.measure.probe_metrics import clustering_metrics, retrieval_metrics
from utils.measure.retrieval import majority_label, nearest, region_confusion
from utils.measure.spec import confusion_metrics
from utils.recipe import Recipe
from utils.report.embeddings import draw_prototypes
from utils.run import Run, entry, start_run

READS = ("evaluation", "foreground", "save_predictions")  # keys that clustering and retrieval read in addition

# ---- linear probe


class LinearRecipe(Recipe):
    """L = CE(W f(x) + b, y). W and b train; the network f is frozen and in evaluation mode."""

    score = "miou"

    def __init__(self, model: LinearProbe, *given: Any):
        super().__init__(model, *given)
        weight = model.classifier.weight
        # confusion matrix of augmented training images since the last validation, over all processes
        self.seen = torch.zeros(len(weight), len(weight), dtype=torch.int64, device=weight.device)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"name": "decoder", "params": list(self.model.classifier.parameters()), "lr": self.settings.lr}]

    def step(self, batch: dict, epoch: int) -> dict:
        image, label = self.model.normalize(batch["train"]["image"]), batch["train"]["label"]
        logits = self.model(image).logits
        self.seen += dist.sum_(confusion_of_step(logits.argmax(1), label, *self.seen.shape))
        return {"ce": cross_entropy(logits, label, pixels=dist.labelled_pixels(label))}

    def evaluate(self, run: Run) -> dict[str, Any]:
        """Adds `train_miou`, over the training images since the last validation, as printed by the official program."""
        metrics = super().evaluate(run)
        if self.protocol and self.seen.any():
            metrics["train_miou"] = confusion_metrics(self.seen, self.protocol.spec)["miou"]
        self.seen.zero_()
        return metrics

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state(self, state: dict[str, Any]) -> None:
        self.seen.copy_(state["seen"])


def linear(data: ProbeData) -> dict:
    """Trains a linear probe unless `checkpoint` is one; returns the metrics of its evaluation at image size."""
    cfg = data.cfg
    if cfg.evaluation.crf:
        require_crf()
    if cfg.checkpoint and is_probe(cfg, cfg.checkpoint):
        return evaluate_linear(data, {"given file": cfg.checkpoint})
    with start_run(cfg, "linear", ("training",), source_files(cfg), files=data.context.files, place=(1, 2)) as run:
        if not run.finished:
            model = run.place(build_probe(cfg, data.num_classes))
            feed, protocol = {"train": data.source("train", data.train())}, data.protocol(data.val("label"))
            recipe = LinearRecipe(model, cfg.training, feed, protocol)
            run.finish(fit(recipe, cfg.training, run) | {"protocol": protocol.name})
        paths = {"best epoch": run.best, "last epoch": run.last}
    compared = cfg.evaluation.compare and not cfg.evaluation.crf  # the CRF is slower than everything else together
    return evaluate_linear(data, paths if compared else {"best epoch": paths["best epoch"]})


def evaluate_linear(data: ProbeData, paths: dict[str, Path]) -> dict:
    """Metrics of the first probe; `compared` has mIoU and pixel accuracy of all. One pass of the frozen network."""
    cfg = data.cfg
    first, *others = paths.values()
    stage = "eval_linear_crf" if cfg.evaluation.crf else "eval_linear"
    reads, inputs = ("evaluation", "save_predictions"), {"checkpoint": first}
    place = (1, 1) if "given file" in paths else (2, 2)
    with start_run(cfg, stage, reads, inputs, files=data.context.files, place=place) as run:
        if not run.finished:
            probe, protocol = run.place(load_probe(cfg, first, data.num_classes)), data.test_protocol()
            heads = [probe.classifier, *(run.place(last_layer(path, probe)) for path in others)]
            save = writer(data, run, "predictions", protocol.images)
            counts = protocol.count(head_maps(probe, heads, protocol, run), run, len(heads), save)
            scores = [protocol.metrics(counts, place) for place in range(len(heads))]
            compared = [
                {"model": name, "miou": found["miou"], "pixel_accuracy": found["pixel_accuracy"]}
                for name, found in zip(paths, scores, strict=True)
            ]
            assert counts.native is not None  # the test protocol counts at native size
            write_matrices(run, {"confusion": counts.native[0].numpy()})
            about = {"protocol": protocol.name, "images": len(protocol.images), "checkpoint": str(first)}
            run.finish(scores[0] | {"compared": compared} | about)
        return run.metrics()


def last_layer(path: Path, probe: LinearProbe) -> nn.Conv2d:
    """The trained convolution of another probe of the same network."""
    state = read_weights(path).state
    head = nn.Conv2d(probe.classifier.in_channels, probe.classifier.out_channels, 1)
    head.load_state_dict({name: state[f"{CLASSIFIER}{name}"] for name in ("weight", "bias")})
    return head


def head_maps(probe: LinearProbe, heads: list[nn.Conv2d], protocol, run: Run) -> Iterator[tuple[dict, Maps]]:
    """Yield (batch, label maps of each head [B, M, H, W]). With a CRF, only the first head, [1, h, w] at image size."""

    def forward(images: torch.Tensor) -> list[torch.Tensor]:
        embedding = probe.features(probe.normalize(images))
        return [probe.upsample(head(embedding), images.shape[-2:]) for head in heads]

    predictions = predict(forward, probe, protocol.loader, run, "evaluation")
    if not run.cfg.evaluation.crf:
        for batch, outputs in predictions:
            yield batch, torch.stack([logits.argmax(1) for logits in outputs], 1)
        return
    workers = run.cfg.data.workers
    # an image takes seconds, and the package holds the interpreter lock: use processes, not threads
    with ProcessPoolExecutor(max(1, workers), mp_context=multiprocessing.get_context("spawn")) as pool:
        each = pool.map if workers else map
        for batch, outputs in predictions:
            images = [read_image(protocol.images.samples[index].image) for index in batch["index"].tolist()]
            yield batch, [label[None] for label in each(refine, outputs[0].float().cpu().numpy(), images)]


# ---- features for clustering and retrieval


def build_extractor(data: ProbeData, run: Run) -> tuple[FeatureExtractor, tuple[str, ...]]:
    """The frozen network, and the fields that it needs in addition to images."""
    network, choice = run.place(build_features(data.cfg)), data.foreground
    if choice == "head" and not network.has_head:
        raise UserError("foreground=head: a plain backbone has no saliency head; use foreground=saliency")
    given = choice == "saliency"
    return FeatureExtractor(network, data.num_classes, run, given), ("saliency",) if given else ()


# ---- clustering


def kmeans(data: ProbeData) -> dict:
    """Cluster prototypes or cells and assign clusters to classes. One pass serves all seeds (two passes for cells)."""
    cfg = data.cfg
    by_patch = cfg.kmeans.unit == "patch"
    stage = "kmeans_patch" if by_patch else "kmeans"
    with start_run(cfg, stage, ("kmeans", *READS), source_files(cfg), files=data.context.files) as run:
        if not run.finished:
            extractor, fields = build_extractor(data, run)
            images = data.val(*fields)
            matrices = (cluster_patches if by_patch else cluster_images)(data, extractor, data.loader(images), run)
            metrics = clustering_metrics(matrices, data.classes, cfg.kmeans.match, cfg.evaluation.absent)
            every = np.stack(list(matrices.values()))
            write_matrices(run, {"confusion": every[0], "confusion_seeds": every})
            if cfg.save_predictions:
                numbers = np.array([number for _, number in metrics["match"]])
                nothing = ignored(data.num_classes)
                table = np.where(numbers < 0, nothing, numbers).astype(np.min_scalar_type(nothing))
                relabel(run.dir / "clusters", run.dir / "predictions", lambda _: table)
            protocol = f"image size, one vector per {cfg.kmeans.unit}"
            run.finish(metrics | {"protocol": protocol, "images": len(images), "checkpoint": source_name(cfg)})
        return run.metrics()


def cluster_images(data: ProbeData, extractor: FeatureExtractor, loader, run: Run) -> dict[int, np.ndarray]:
    """Confusion matrix int64 [C, 1 + K] of each seed; the pixels of an object get the cluster of its prototype."""
    images, k = loader.dataset.dataset, number_of_clusters(data)
    save = writer(data, run, "clusters", images, k + 1)
    objects = extractor.objects(loader, "prototypes", save)
    if dist.is_main():
        picture, seed = run.dir / "prototypes.svg", run.cfg.kmeans.seeds[0]
        draw_prototypes(picture, objects.prototypes, objects.classes(), data.classes, seed)
    assigned = {}
    for number in run.cfg.kmeans.seeds:
        assigned[number] = 1 + fit_clusters(objects.prototypes, k, number, run).kmeans.labels_
    names = [sample.id for sample in images.samples]
    if dist.is_main():
        rows = np.stack(list(assigned.values()), 1).tolist()
        checkpoint.write_json(run.dir / "assignments.json", dict(zip(names, rows, strict=True)))
    if save:
        paint_objects(run.dir / "clusters", names, next(iter(assigned.values())), k + 1)
    return {seed: region_confusion(objects.counts, ids, k + 1) for seed, ids in assigned.items()}


def cluster_patches(data: ProbeData, extractor: FeatureExtractor, loader, run: Run) -> dict[int, np.ndarray]:
    """Confusion matrix int64 [C, 1 + K] of each seed; each feature cell of an object has its own cluster."""
    k = number_of_clusters(data)
    vectors, _ = extractor.patches(loader, run.cfg.kmeans.patches, "patches")
    fitted = [fit_clusters(vectors.numpy(), k, seed, run) for seed in run.cfg.kmeans.seeds]

    def maps() -> Iterator[tuple[dict, Maps]]:
        for batch, features, weight in extractor.walk(loader, "clusters"):
            flat = cell_vectors(features).cpu().numpy()
            ids = torch.stack([torch.from_numpy(assign(flat)) for assign in fitted])  # [M, Bhw]
            cells = ids.view(len(fitted), len(weight), *features.shape[-2:]).transpose(0, 1)
            yield batch, paint(cells + 1, weight.cpu())

    shape, images = (len(fitted), data.num_classes, k + 1), loader.dataset.dataset
    save = writer(data, run, "clusters", images, k + 1)
    counts = count(maps(), shape, run, native=images, network=False, save=save)
    return dict(zip(run.cfg.kmeans.seeds, counts.native.numpy(), strict=True))


def fit_clusters(vectors: np.ndarray, k: int, seed: int, run: Run) -> Quantizer:
    """Mini-batch k-means of vectors [N, D] with the settings of the section `kmeans`."""
    options = run.cfg.kmeans
    settings = {"pca_dim": options.pca_dim, "whiten": options.whiten, "n_init": options.n_init}
    return fit_minibatch(vectors, k, seed=seed, batch_size=options.batch_size, **settings)


def number_of_clusters(data: ProbeData) -> int:
    """K, by default the number of classes without background."""
    return data.cfg.kmeans.clusters or data.num_classes - 1


# ---- retrieval


def retrieval(data: ProbeData) -> dict:
    """Label objects or cells by their nearest neighbour; score with and without the `ignore` classes in one pass."""
    cfg = data.cfg
    by_patch = cfg.retrieval.unit == "patch"
    stage = "retrieval_patch" if by_patch else "retrieval"
    with start_run(cfg, stage, ("retrieval", *READS), source_files(cfg), files=data.context.files) as run:
        if not run.finished:
            extractor, fields = build_extractor(data, run)
            memory, val = (make("label", *fields) for make in (data.memory, data.val))
            ignored = [data.classes.index(name) for name in cfg.retrieval.ignore]
            excluded = {"all": (0,), "kept": (0, *ignored)} if ignored else {"all": (0,)}
            find = retrieve_patches if by_patch else retrieve_images
            matrices, sizes = find(data, extractor, data.loader(memory), data.loader(val), excluded, run)
            whole, kept = matrices["all"], matrices.get("kept")
            write_matrices(run, {"confusion": whole} | ({} if kept is None else {"confusion_kept": kept}))
            metrics = retrieval_metrics(whole, kept, data.classes, ignored, cfg.evaluation.absent)
            protocol = f"network resolution, one vector per {cfg.retrieval.unit}, memory {cfg.retrieval.memory}"
            found = {"protocol": protocol, "images": len(val), "memory": sizes, "checkpoint": source_name(cfg)}
            run.finish(metrics | found)
        return run.metrics()


def retrieve_images(data: ProbeData, extractor, memory, val, excluded, run: Run) -> tuple[dict, list[int]]:
    """Confusion matrix int64 [C, C] and memory size for each set of `excluded` classes; saves maps of the first."""
    save = writer(data, run, "predictions", val.dataset.dataset)
    known, asked = extractor.objects(memory, "memory"), extractor.objects(val, "queries", save)
    entries, queries = ([sample.id for sample in loader.dataset.dataset.samples] for loader in (memory, val))
    labels, neighbours, matrices = {}, {}, {}
    for name, out in excluded.items():
        classes = known.classes(out)
        rows = np.flatnonzero(remembered(classes > 0, run))
        vectors = torch.from_numpy(known.prototypes[rows])
        found = rows[nearest(torch.from_numpy(asked.prototypes), vectors).numpy()]
        matrices[name] = region_confusion(asked.counts, classes[found], data.num_classes)
        labels[name] = {entries[row]: int(classes[row]) for row in rows}
        neighbours[name] = dict(zip(queries, (entries[row] for row in found), strict=True))
        if save and name == "all":
            paint_objects(run.dir / "predictions", queries, classes[found], data.num_classes)
    if dist.is_main():
        checkpoint.write_json(run.dir / "memory.json", labels)
        checkpoint.write_json(run.dir / "neighbours.json", neighbours)
    return matrices, [len(kept) for kept in labels.values()]


def retrieve_patches(data: ProbeData, extractor, memory, val, excluded, run: Run) -> tuple[dict, list[int]]:
    """Confusion matrix int64 [C, C] and memory size for each set of `excluded` classes; one label per feature cell."""
    vectors, counts = extractor.patches(memory, run.cfg.retrieval.patches, "memory")
    stores = []
    for classes in (majority_label(counts.numpy(), out) for out in excluded.values()):
        labelled = remembered(classes > 0, run)
        stores.append([torch.as_tensor(v[labelled]).to(run.device) for v in (vectors.numpy(), classes)])

    def maps() -> Iterator[tuple[dict, Maps]]:
        for batch, features, weight in extractor.walk(val, "queries"):
            flat, shape = cell_vectors(features), (len(weight), *features.shape[-2:])
            numbers = [classes[nearest(flat, known)].view(shape) for known, classes in stores]
            yield batch, paint(torch.stack(numbers, 1), weight)

    shape, images = (len(stores), data.num_classes, data.num_classes), val.dataset.dataset
    save = writer(data, run, "predictions", images)
    counts = count(maps(), shape, run, native=images if save else None, save=save)
    return dict(zip(excluded, counts.network.numpy(), strict=True)), [len(known) for known, _ in stores]


def remembered(labelled: np.ndarray, run: Run) -> np.ndarray:
    """`labelled` bool [N]. Raises UserError if no entry of the memory has a class."""
    if not labelled.any():
        raise UserError(
            f"retrieval.memory={run.cfg.retrieval.memory}: no object in it covers a class; check masks and "
            "saliency maps"
        )
    return labelled


# ---- all modes


def writer(data: ProbeData, run: Run, folder: str, images: SegmentationDataset, num_values: int = 0) -> Save | None:
    """Writer of label maps with `num_values` values (default: classes); None without save_predictions."""
    return map_writer(run.dir / folder, images, num_values or data.num_classes) if run.cfg.save_predictions else None


def paint_objects(folder: Path, names: list[str], numbers: np.ndarray, num_values: int) -> None:
    """Replace the value 1 of the object in each <folder>/<name>.png by its number."""
    kind, of = np.uint16 if is_wide(num_values) else np.uint8, dict(zip(names, numbers.tolist(), strict=True))
    relabel(folder, folder, lambda name: np.array([0, of[name]], kind))


def write_matrices(run: Run, matrices: dict[str, np.ndarray]) -> None:
    if dist.is_main():
        for name, counts in matrices.items():
            write_array(run.dir / f"{name}.npy", counts)


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
    return print_probe(cfg, MODES[cfg.mode](ProbeData.open(cfg)))


if __name__ == "__main__":
    entry(main)
