"""Stage 2 of 6: remove base classes from the salient regions of novel images, cluster the rest, write pseudo-labels.

reads   base model, images of the novel list, and their saliency maps unless cluster.salient=false
writes  <output_dir>/<split>/pseudo/{novel.txt, base.txt, pseudo_labels/{<id>.png, manifest.json}, full_pred/,
        high_base_pred/, high_base_map/, novel_map/, embeddings/, prototypes/, clusters.json, metrics.json}; names.json
        with cluster.names=suggest, how_many.json with cluster.k=auto, parts/ if images have several units to cluster

    python cluster_pseudolabel.py configs/demo/discovery.yaml
    python cluster_pseudolabel.py configs/demo/discovery.yaml cluster.unit=component   # one object per component
    python cluster_pseudolabel.py configs/demo/discovery.yaml cluster.assign=oracle    # reference: pseudo_oracle/
    python cluster_pseudolabel.py configs/demo/discovery.yaml cluster.features=maskcontrast \
        checkpoint=output/demo_contrast/pretrain/last.pth
"""

from utils.entry import answer

if __name__ == "__main__":  # before the imports below, which take seconds
    answer(__doc__, __file__, ("ncdss",))

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm.contrib.concurrent import thread_map

from data.discovery.builder import DiscoveryData
from data.discovery.prototypes import Describer, base_means, divide
from data.discovery.stages import base_model
from data.discovery.units import CERTAINTY, Unit, by_image, list_units, mean_certainty_by_image, read_parts
from data.discovery.words import vocabulary
from data.io import read_label, write_array, write_label
from data.layouts import Sample
from data.pseudo_labels import PseudoLabel
from models.contrast.encoder import load_encoder
from models.contrast.probes import FeatureNetwork
from models.segmentation import SegmentationNet, build_network
from models.segmentation_files import load_network
from models.trunks import build_backbone
from utils import dist
from utils.background import Background
from utils.channels import most_probable
from utils.checkpoint import digest, settle, write_json, write_list
from utils.cluster_names import OF, set_aside
from utils.config.discovery import DiscoveryConfig
from utils.config.reader import load_config
from utils.errors import UserError
from utils.labels import ignored, is_wide
from utils.log import log
from utils.measure.clustering import certainty, cluster_prototypes, purity
from utils.measure.confusion import predict
from utils.measure.num_clusters import estimate_k
from utils.measure.word_regression import suggest
from utils.run import Run, entry, start_run

FEW = 3  # clusters with fewer objects cause a warning
MAPS = ("full_pred", "high_base_pred", "high_base_map", "novel_map")


def base_removal(logits: torch.Tensor, saliency: torch.Tensor, threshold: float) -> dict[str, torch.Tensor]:
    """Separate the pixels of confident base classes from the remaining salient pixels, the novel region.

    logits [B, C, H, W] of the base model, saliency uint8 [B, H, W] -> the four maps of MAPS [B, H, W], uint8 or, for
    more than 255 classes, int32. A pixel is confident if its softmax maximum exceeds `threshold`; confident
    background may still become a novel object.
    """
    confidence, prediction = most_probable(logits)
    kind = torch.int32 if is_wide(logits.shape[1]) else torch.uint8
    certain = torch.where(confidence > threshold, prediction, 0).to(kind)
    is_base = certain > 0
    return {
        "full_pred": prediction.to(kind),
        "high_base_pred": certain,
        "high_base_map": is_base.to(torch.uint8) * 255,
        "novel_map": torch.where(is_base, 0, saliency),
    }


def fuse(high_base_pred: np.ndarray, parts: np.ndarray, rest: int) -> np.ndarray:
    """Pseudo-label [H, W]: confident base classes, then the labels of an image's units, and `rest` where both are 0.

    The dtype is that of `parts`.
    """
    label = np.where(high_base_pred > 0, high_base_pred, parts)
    return np.where(label > 0, label, rest).astype(parts.dtype)


def remove_base_classes(data: DiscoveryData, model: SegmentationNet, run: Run) -> dict[str, int]:
    """Write the four maps of each novel image at its original size; return image id -> pixels of its novel region."""
    cfg = run.cfg.cluster
    dataset = data.unlabelled(data.lists.novel)
    loader = data.context.loader(dataset, cfg.batch_size)
    pixels: dict[str, int] = {}

    def write(index: int, size: torch.Tensor, *maps: np.ndarray) -> None:
        image_id = dataset.samples[index].id
        files = [m.astype(np.uint16) if m.dtype == np.int32 else m for m in maps]
        written = [write_map(run.dir / n, image_id, m, size.tolist()) for n, m in zip(MAPS, files, strict=True)]
        pixels[image_id] = int(np.count_nonzero(written[-1]))

    with Background() as background:
        for batch, output in predict(lambda x: model(model.normalize(x)), model, loader, run, "base removal"):
            if cfg.salient:
                saliency = batch["saliency"].to(run.device, non_blocking=True)
            else:
                saliency = torch.ones_like(output.logits[:, 0], dtype=torch.uint8)
            if cfg.binarize_saliency:
                saliency = (saliency > 0).to(torch.uint8)
            maps = base_removal(output.logits, saliency, cfg.threshold)
            arrays = [maps[name].cpu().numpy() for name in MAPS]
            for index, size, *found in zip(batch["index"].tolist(), batch["size"], *arrays, strict=True):
                background.call(write, index, size, *found)
    return {image_id: count for part in dist.gather(pixels) for image_id, count in part.items()}


def write_map(folder: Path, image_id: str, values: np.ndarray, size: list[int]) -> np.ndarray:
    """Nearest-resize a map [H, W] of uint8 or uint16 to (h, w), write it as <id>.png, and return it."""
    height, width = size
    resized = cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST)
    write_label(folder / f"{image_id}.png", resized, settled=False)
    return resized


def keep_images(pixels: dict[str, int], least: int) -> list[str]:
    """Sorted ids of images whose novel region has more than `least` pixels at original size."""
    kept = sorted(image_id for image_id, count in pixels.items() if count > least)
    if not kept:
        raise UserError(
            f"cluster.min_pixels={least}: no novel region of the {len(pixels)} images is larger; "
            "lower it, or check the saliency maps and the base model"
        )
    return kept


def feature_network(cfg: DiscoveryConfig, base: SegmentationNet) -> FeatureNetwork:
    """The network that embeds objects: a trunk (published: ImageNet), the base model, or a MaskContrast encoder."""
    cluster, model = cfg.cluster, cfg.model
    if cluster.layer == "embedding":
        return FeatureNetwork(base)
    stride, path = cluster.features_stride or model.output_stride, cluster.features_checkpoint
    if cluster.features == "maskcontrast":
        return FeatureNetwork(load_encoder(model.model_copy(update={"output_stride": stride}), path))
    if path is None and cluster.features == "base":
        path = base_model(cfg, cluster.base_model)
    imagenet = "imagenet" if model.init == "random" else model.init  # or a file with these weights
    return FeatureNetwork(build_backbone(model.backbone, stride, str(path or imagenet)))


def find_units(data: DiscoveryData, pixels: dict[str, int], describer: Describer | None, run: Run) -> list[Unit]:
    """The units to cluster: the whole novel region of each image, or its parts of at least `cluster.min_share`.

    Leaves out images whose novel region has at most `cluster.min_pixels` pixels.
    """
    c, sizes = data.cfg.cluster, {image_id: [count] for image_id, count in pixels.items()}
    if c.unit != "image":
        sizes = divide(list(pixels), describer if c.unit == "region" else None, c.min_share, run)
    kept = keep_images({image_id: sum(found) for image_id, found in sizes.items()}, c.min_pixels)
    return list_units(sizes, kept)


def assign_clusters(
    data: DiscoveryData, units: list[Unit], classes: np.ndarray | None, describer: Describer | None, run: Run
) -> np.ndarray:
    """Cluster 1..K of each unit, int [N]; 0: none; -b: base class b. Only the oracle uses the true `classes`."""
    c, whole = run.cfg.cluster, run.cfg.cluster.unit == "image"
    if c.assign == "random":
        return np.random.default_rng(run.cfg.seed).integers(1, c.k + 1, len(units))
    if c.assign == "oracle":
        if classes is None:
            raise UserError("cluster.assign=oracle needs the masks of the novel images; this data root has none")
        return classes
    assert describer is not None
    prototypes = describer.objects(units, not whole)
    base = describer.base_objects() if c.k == "auto" or c.names == "suggest" or c.assign == "semi" else {}
    k = how_many(prototypes, base, run) if c.k == "auto" else c.k
    options = {"pca_dim": c.pca_dim, "whiten": c.whiten, "seed": run.cfg.seed, "n_init": c.n_init}
    known = list(base.values()) if c.assign == "semi" else None
    found = cluster_prototypes(prototypes, k, known=known, **options)
    if dist.is_main():
        certain = certainty(found.points, found.ids).round(4).tolist()
        write_json(run.dir / CERTAINTY, by_image(units, certain, whole))
        for image_id, points in by_image(units, found.points.astype(np.float32), whole).items():
            write_array(run.dir / "prototypes" / f"{image_id}.npy", np.array(points), settled=False)
    if c.names == "suggest":
        suggest_names(data, prototypes, found.ids, base, run)
    return np.where(found.ids < 0, found.ids, found.ids + 1)


def how_many(objects: np.ndarray, base: dict[int, np.ndarray], run: Run) -> int:
    """Estimate the number of clusters of prototypes [N, D]; write the criteria to how_many.json."""
    c = run.cfg.cluster
    estimate = estimate_k(objects, list(base.values()), c.pca_dim, c.whiten, c.k_most, run.cfg.seed)
    best = ", ".join(f"{name} {k}" for name, k in estimate.best.items())
    log.info("number of clusters: %d, the median of the criteria (%s)", estimate.k, best)
    if dist.is_main():
        write_json(run.dir / "how_many.json", estimate.as_json())
    return estimate.k


def suggest_names(
    data: DiscoveryData, objects: np.ndarray, ids: np.ndarray, base: dict[int, np.ndarray], run: Run
) -> None:
    """Write names.json: for each cluster, the words whose predicted features (regressed from the base classes) are
    closest to the cluster mean.
    """
    c, names = run.cfg.cluster, data.groups.names[1 : data.num_known]
    words = vocabulary(names, c.name_vectors, run.cfg.data.dataset, c.candidates)
    k = int(ids.max()) + 1
    means = np.stack([objects[ids == cluster].sum(0) / max(1, np.sum(ids == cluster)) for cluster in range(k)])
    found = suggest(words.known, base_means(data, base), words.names, words.vectors, means)
    for cluster, best in enumerate(found, start=1):
        log.info("cluster %d could be: %s", cluster, ", ".join(f"{name} ({score:.2f})" for name, score in best))
    if dist.is_main():
        write_json(run.dir / "names.json", {str(1 + cluster): best for cluster, best in enumerate(found)})


def true_classes(data: DiscoveryData, units: list[Unit], run: Run) -> np.ndarray | None:
    """True class of each unit (DiscoveryData.true_classes), int [N], for reports and the oracle; None without masks."""
    if data.is_unknown:
        return None
    try:
        samples = data.context.index(dict.fromkeys(unit.image for unit in units), ("image", "label"))
    except UserError:
        return None

    def classes_of(sample: Sample) -> list[int]:
        return data.true_classes(sample, read_parts(run.dir, sample.id))

    own = dist.share(samples)
    found = thread_map(classes_of, own, desc="true classes", leave=False, disable=None)
    everywhere = dist.gather(dict(zip((sample.id for sample in own), found, strict=True)))
    classes = {image_id: numbers for part in everywhere for image_id, numbers in part.items()}
    return np.array([classes[unit.image][unit.part - 1] for unit in units])


def write_pseudo_labels(
    data: DiscoveryData, units: list[Unit], clusters: np.ndarray, k: int, made_from: dict[str, Path], run: Run
) -> None:
    """Write embeddings/<id>.png (0 or cluster) and pseudo_labels/<id>.png (fused with the confident base prediction).

    Other pixels are background if novel objects are salient, and ignored with cluster.salient=false.
    """
    cfg, wide = run.cfg, is_wide(data.num_known + k)
    size, kind = cfg.data.image_size, np.uint16 if wide else np.uint8
    rest = 0 if cfg.cluster.salient else ignored(data.num_known + k)
    numbers = by_image(units, clusters.tolist(), whole=False)

    def write(image_id: str) -> None:
        parts = read_parts(run.dir, image_id)
        # to network resolution and back, as in the official code; moves borders by up to a pixel
        small = cv2.resize(parts, (size, size), interpolation=cv2.INTER_NEAREST)
        back = cv2.resize(small, parts.shape[::-1], interpolation=cv2.INTER_NEAREST)
        found = np.array([0, *numbers[image_id]])
        embeddings = np.where(found > 0, found, 0).astype(kind)[back]
        write_label(run.dir / "embeddings" / f"{image_id}.png", embeddings, settled=False)
        labels = np.where(found > 0, found + data.num_known - 1, -found).astype(kind)[back]
        base = read_label(run.dir / "high_base_pred" / f"{image_id}.png")
        add(PseudoLabel(image_id, fuse(base, labels, rest), confidence.get(image_id)))

    paths = {"features_checkpoint", "candidates"}  # their content matters, not their path
    settings = {"cluster": cfg.cluster.model_dump(mode="json", exclude=paths), "seed": cfg.seed}
    with data.pseudo_labels(run.dir).writing(made_from, settings) as add:
        confidence = mean_certainty_by_image(run.dir)
        thread_map(write, dist.share(list(numbers)), desc="pseudo-labels", leave=False, disable=None)
    if dist.is_main():
        settle(run.dir)  # once for all files of the stage


def check_settings(cfg: DiscoveryConfig, data: DiscoveryData) -> None:
    """UserError for settings of `cluster` that contradict each other or the split."""
    c = cfg.cluster
    if c.k == "auto" and c.assign != "kmeans":
        raise UserError(f"cluster.k=auto: needs cluster.assign=kmeans, not {c.assign}; set cluster.k to a number")
    if c.assign == "oracle" and data.is_unknown:
        raise UserError(f"cluster.assign=oracle: the novel classes of split={cfg.split} are unknown; leave it out")
    if c.assign == "oracle" and c.k != "auto" and c.k < len(data.novel_names):
        raise UserError(
            f"cluster.k={c.k}: cluster.assign=oracle needs a cluster for each novel class of split={cfg.split}; use at "
            f"least {len(data.novel_names)}"
        )
    if c.features == "maskcontrast" and not c.features_checkpoint:
        raise UserError("cluster.features=maskcontrast: needs checkpoint=FILE, an encoder of pretrain_contrast.py")
    if c.layer == "embedding" and (c.features != "base" or c.features_checkpoint or c.features_stride):
        raise UserError(
            "cluster.layer=embedding: uses the base model as it was trained; set cluster.features=base, and leave out "
            "cluster.features_checkpoint and cluster.features_stride"
        )
    if c.names == "suggest" and c.assign != "kmeans":
        raise UserError(f"cluster.names=suggest: needs cluster.assign=kmeans, not {c.assign}; leave it out")


def summary(units: list[Unit], clusters: np.ndarray, k: int, classes: np.ndarray | None) -> dict[str, Any]:
    """Cluster sizes, and purity if true classes are known; warns of clusters with few objects."""
    sizes = np.bincount(clusters[clusters > 0], minlength=k + 1)[1:].tolist()
    found: dict[str, Any] = {"kept": len({unit.image for unit in units}), "k": k, "cluster_sizes": sizes}
    if min(sizes) < FEW:
        few = [f"{number} ({size})" for number, size in enumerate(sizes, start=1) if size < FEW]
        log.warning("clusters with fewer than %d objects: %s; lower cluster.k if they are noise", FEW, ", ".join(few))
    if (clusters < 0).any():
        found["base_objects"] = int((clusters < 0).sum())
    if classes is not None:
        found["purity"] = purity(clusters, classes)
        log.info("purity (share of objects of their cluster's majority class): %.3f", found["purity"])
    return found


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, ("ncdss",))
    data = DiscoveryData.open(cfg)
    check_settings(cfg, data)
    inputs = {"base_checkpoint": base_model(cfg, cfg.cluster.base_model)}
    if cfg.cluster.features_checkpoint:
        inputs["features_checkpoint"] = cfg.cluster.features_checkpoint
    with start_run(cfg, f"pseudo{cfg.reference}", ("cluster",), inputs, files=data.context.files) as run:
        if run.finished:
            return
        model = build_network(cfg.model, data.num_known, init="random")
        load_network(model, inputs["base_checkpoint"])
        pixels = remove_base_classes(data, run.place(model), run)
        describer = Describer(data, run.place(feature_network(cfg, model)), run) if cfg.cluster.describes else None
        units = find_units(data, pixels, describer, run)
        classes = true_classes(data, units, run)
        clusters = assign_clusters(data, units, classes, describer, run)
        k = int(clusters.max()) if cfg.cluster.k == "auto" else cfg.cluster.k
        write_pseudo_labels(data, units, clusters, k, inputs, run)
        metrics = {"images": len(pixels), **summary(units, clusters, k, classes)}
        if dist.is_main():
            write_json(run.dir / "clusters.json", by_image(units, clusters.tolist(), cfg.cluster.unit == "image"))
            write_list(run.dir / "novel.txt", list(dict.fromkeys(unit.image for unit in units)))
            write_list(run.dir / "base.txt", list(data.lists.base))
            if data.is_unknown and not cfg.reference:
                set_aside(run.dir.parent, digest(run.dir / OF))
        log.info(
            "kept %d objects in %d of %d novel images; objects per cluster: %s",
            *(len(units), metrics["kept"], len(pixels), metrics["cluster_sizes"]),
        )
        run.finish(metrics)


if __name__ == "__main__":
    entry(main)
