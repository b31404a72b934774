"""Stage 2 of 6: remove base classes from the salient regions of novel images, cluster the rest, write pseudo labels.

reads   base model, images and saliency maps of the novel list
writes  <output_dir>/<split>/pseudo/{novel.txt, base.txt, pseudo_labels/<id>.png, full_pred/, high_base_pred/,
        high_base_map/, novel_map/, embeddings/, prototypes/, clusters.json, metrics.json}, names.json if asked for,
        how_many.json with cluster.k=auto

    python cluster_pseudolabel.py configs/demo/ncdss.yaml
    python cluster_pseudolabel.py configs/demo/ncdss.yaml cluster.assign=oracle    # reference: pseudo_oracle/
    python cluster_pseudolabel.py configs/demo/ncdss.yaml cluster.features=maskcontrast \
        checkpoint=output/demo_maskcontrast/pretrain/last.pth
"""

from utils.begin import answer

if __name__ == "__main__":  # before the imports below, which take seconds
    answer(__doc__, __file__, ("ncdss",))

from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm.contrib.concurrent import thread_map

from data.chain import base_model
from data.discovery import DiscoveryData, main_class
from data.io import read_label, write_array, write_label
from data.layouts import Sample
from data.naming import vocabulary
from models.backbones import build_backbone
from models.contrast import load_encoder
from models.deeplab import DeepLabV3, build_model
from models.deeplab_files import load_deeplab
from models.probes import FeatureNetwork
from utils import dist
from utils.background import Background
from utils.channels import most_probable
from utils.checkpoint import digest, settle, write_json, write_list
from utils.cluster_names import OF, set_aside
from utils.config.ncdss import NcdssConfig
from utils.config.reader import load_config
from utils.errors import UserError
from utils.labels import is_wide
from utils.log import log
from utils.measure.clustering import certainty, cluster_prototypes, mask_prototypes, purity
from utils.measure.confusion import predict
from utils.measure.naming import suggest
from utils.measure.num_clusters import estimate_k
from utils.run import Run, entry, start_run

NAMED_IMAGES = 400  # that tell what base classes look like, to suggest names of clusters
FEW = 3  # objects, below which a cluster is warned of
MAPS = ("full_pred", "high_base_pred", "high_base_map", "novel_map")


def base_removal(logits: torch.Tensor, saliency: torch.Tensor, threshold: float) -> dict[str, torch.Tensor]:
    """Where a base class is certain, and the salient rest.

    logits [B, C, H, W] of the base model, saliency uint8 [B, H, W] -> the four maps of MAPS [B, H, W], uint8 or, for
    more than 255 classes, int32. A pixel is certain when its softmax maximum exceeds `threshold` strictly; certain
    background stays open to novel objects.
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


def fuse(high_base_pred: np.ndarray, embeddings: np.ndarray, num_known: int) -> np.ndarray:
    """Pseudo label [H, W]: confident base classes first, then clusters j = 1..K as B+j, background elsewhere.

    `embeddings` uint8 or uint16 [H, W] is 0 or j; so is the result, in its type.
    """
    clusters = np.where(embeddings > 0, embeddings.astype(np.int64) + num_known - 1, 0)
    return np.where(high_base_pred > 0, high_base_pred, clusters).astype(embeddings.dtype)


def remove_base_classes(data: DiscoveryData, model: DeepLabV3, run: Run) -> dict[str, int]:
    """Write the four maps of every novel image at its own size; image id -> pixels of its novel region."""
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
            saliency = batch["saliency"].to(run.device, non_blocking=True)
            if cfg.binarize_saliency:
                saliency = (saliency > 0).to(torch.uint8)
            maps = base_removal(output.logits, saliency, cfg.threshold)
            arrays = [maps[name].cpu().numpy() for name in MAPS]
            for index, size, *found in zip(batch["index"].tolist(), batch["size"], *arrays, strict=True):
                background.call(write, index, size, *found)
    return {image_id: count for part in dist.gather(pixels) for image_id, count in part.items()}


def write_map(folder: Path, image_id: str, values: np.ndarray, size: list[int]) -> np.ndarray:
    """Nearest-resize a map [H, W] of uint8 or uint16 to (h, w), write it as <id>.png, and give it back."""
    height, width = size
    resized = cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST)
    write_label(folder / f"{image_id}.png", resized, settled=False)
    return resized


def keep_images(pixels: dict[str, int], least: int) -> list[str]:
    """Sorted ids whose novel region has more than `least` pixels at the image's own size."""
    kept = sorted(image_id for image_id, count in pixels.items() if count > least)
    if not kept:
        raise UserError(
            f"cluster.min_pixels={least}: no novel region of the {len(pixels)} images is larger; "
            "lower it, or check the saliency maps and the base model"
        )
    return kept


def describe_objects(data: DiscoveryData, ids: list[str], network: FeatureNetwork, run: Run) -> np.ndarray:
    """Prototypes [N, D]: mean feature of each image's novel region, L2-normalised, in the order of `ids`."""
    cfg = run.cfg
    dataset = data.objects(ids, run.dir / "novel_map", cfg.cluster.features_size or cfg.data.image_size)
    loader = data.context.loader(dataset, cfg.cluster.batch_size)
    rows: dict[int, np.ndarray] = {}

    def features_of(images: torch.Tensor) -> torch.Tensor:
        return network(network.normalize(images)).features.float()

    for batch, features in predict(features_of, network, loader, run, "features"):
        vectors = mask_prototypes(features, batch["saliency"].to(run.device).float()).cpu().numpy()
        rows |= dict(zip(batch["index"].tolist(), vectors, strict=True))
    everywhere = {index: row for part in dist.gather(rows) for index, row in part.items()}
    return np.stack([everywhere[index] for index in range(len(ids))])


def describe_base_objects(data: DiscoveryData, network: FeatureNetwork, run: Run) -> dict[int, np.ndarray]:
    """Base class 1..A -> prototypes [n, D] of its regions, one per image that shows it, n may be 0."""
    cfg = run.cfg
    ids = data.lists.base[:: max(1, len(data.lists.base) // NAMED_IMAGES)]
    dataset = data.labelled_at(ids, cfg.cluster.features_size or cfg.data.image_size)
    loader = data.context.loader(dataset, cfg.cluster.batch_size)
    rows: dict[int, list[np.ndarray]] = {number: [] for number in range(1, data.num_known)}

    def features_of(images: torch.Tensor) -> torch.Tensor:
        return network(network.normalize(images)).features.float()

    for batch, features in predict(features_of, network, loader, run, "base classes"):
        label = batch["label"].to(run.device)
        for number in set(label.unique().tolist()) & rows.keys():
            shown = (label == number).flatten(1).any(1)
            vectors = mask_prototypes(features[shown], (label[shown] == number).float())
            rows[number] += list(vectors.cpu().numpy())
    parts = dist.gather(rows)
    return {number: np.array([row for part in parts for row in part[number]]) for number in rows}


def base_means(data: DiscoveryData, objects: dict[int, np.ndarray]) -> np.ndarray:
    """Mean prototype [A, D] of each base class."""
    missing = next((data.groups.names[number] for number, vectors in objects.items() if not len(vectors)), None)
    if missing:
        raise UserError(f"cluster.names=suggest: no pixel of base class '{missing}' in the images of base classes")
    return np.stack([vectors.mean(0) for vectors in objects.values()])


def feature_network(cfg: NcdssConfig) -> FeatureNetwork:
    """The network that describes objects: a backbone (published: ImageNet's) or a MaskContrast encoder."""
    cluster, model = cfg.cluster, cfg.model
    stride, path = cluster.features_stride or model.output_stride, cluster.features_checkpoint
    if cluster.features == "maskcontrast":
        return FeatureNetwork(load_encoder(model.model_copy(update={"output_stride": stride}), path))
    if path is None and cluster.features == "base":
        path = base_model(cfg, cluster.base_model)
    imagenet = "imagenet" if model.init == "random" else model.init  # or the file that holds these weights
    return FeatureNetwork(build_backbone(model.backbone, stride, str(path or imagenet)))


def assign_clusters(data: DiscoveryData, ids: list[str], classes: np.ndarray | None, run: Run) -> np.ndarray:
    """Cluster 1..K of every object (0: none), int [N]; `classes` (true ones) serve the oracle only."""
    cfg = run.cfg
    if cfg.cluster.assign == "random":
        return np.random.default_rng(cfg.seed).integers(1, cfg.cluster.k + 1, len(ids))
    if cfg.cluster.assign == "oracle":
        if classes is None:
            raise UserError("cluster.assign=oracle needs the masks of the novel images; this data root has none")
        return classes
    c, network = cfg.cluster, run.place(feature_network(cfg))
    prototypes = describe_objects(data, ids, network, run)
    estimated = how_many(data, prototypes, network, run) if c.k == "auto" else None
    k = estimated or c.k
    found = cluster_prototypes(prototypes, k, pca_dim=c.pca_dim, whiten=c.whiten, seed=cfg.seed, n_init=c.n_init)
    if dist.is_main():
        certain = certainty(found.points, found.ids)
        write_json(run.dir / "certainty.json", dict(zip(ids, certain.round(4).tolist(), strict=True)))
        for image_id, point in zip(ids, found.points, strict=True):
            write_array(run.dir / "prototypes" / f"{image_id}.npy", point.astype(np.float32), settled=False)
    if c.names == "suggest":
        suggest_names(data, prototypes, found.ids, network, run)
    return found.ids + 1


def how_many(data: DiscoveryData, objects: np.ndarray, network: FeatureNetwork, run: Run) -> int:
    """The estimated number of clusters of prototypes [N, D]; what speaks for it goes to how_many.json."""
    c, base = run.cfg.cluster, describe_base_objects(data, network, run)
    estimate = estimate_k(objects, list(base.values()), c.pca_dim, c.whiten, c.k_most, run.cfg.seed)
    best = ", ".join(f"{name} {k}" for name, k in estimate.best.items())
    log.info("number of clusters: %d, the median of what the criteria prefer (%s)", estimate.k, best)
    if dist.is_main():
        write_json(run.dir / "how_many.json", estimate.as_json())
    return estimate.k


def suggest_names(data: DiscoveryData, objects: np.ndarray, ids: np.ndarray, network: FeatureNetwork, run: Run) -> None:
    """Write names.json: for each cluster 1..K the words whose features, as base classes tell, are like its objects'."""
    c, names = run.cfg.cluster, data.groups.names[1 : data.num_known]
    words = vocabulary(names, c.name_vectors, run.cfg.data.dataset, c.candidates)
    base, k = base_means(data, describe_base_objects(data, network, run)), int(ids.max()) + 1
    means = np.stack([objects[ids == cluster].sum(0) / max(1, np.sum(ids == cluster)) for cluster in range(k)])
    found = suggest(words.known, base, words.names, words.vectors, means)
    for cluster, best in enumerate(found, start=1):
        log.info("cluster %d could be: %s", cluster, ", ".join(f"{name} ({score:.2f})" for name, score in best))
    if dist.is_main():
        write_json(run.dir / "names.json", {str(1 + cluster): best for cluster, best in enumerate(found)})


def true_classes(data: DiscoveryData, ids: list[str], run: Run) -> np.ndarray | None:
    """Novel class 1..n that covers most of each novel region (0: none); None without masks. For reports, the oracle."""
    if data.is_unknown:
        return None
    try:
        samples = data.context.index(ids, ("image", "label"))
    except UserError:
        return None
    full = data.full_map()

    def class_of(sample: Sample) -> int:
        region = read_label(run.dir / "novel_map" / f"{sample.id}.png") > 0
        return main_class(full(sample.load_label(), where=str(sample.label)), region, data.num_known)

    own = dist.share(samples)
    found = thread_map(class_of, own, desc="true classes", leave=False, disable=None)
    everywhere = dist.gather(dict(zip((sample.id for sample in own), found, strict=True)))
    classes = {image_id: number for part in everywhere for image_id, number in part.items()}
    return np.array([classes[image_id] for image_id in ids])


def write_pseudo_labels(data: DiscoveryData, ids: list[str], clusters: np.ndarray, k: int, run: Run) -> None:
    """embeddings/<id>.png (0 or cluster) and pseudo_labels/<id>.png (fused with the confident base prediction)."""
    size, kind = run.cfg.data.image_size, np.uint16 if is_wide(data.num_known + k) else np.uint8

    def write(image_id: str, cluster: int) -> None:
        novel_map = read_label(run.dir / "novel_map" / f"{image_id}.png")
        # through network resolution and back, as the official files went: borders move by up to a pixel
        region = cv2.resize(novel_map, (size, size), interpolation=cv2.INTER_NEAREST) > 0.5
        values = region.astype(kind) * kind(cluster)
        embeddings = write_map(run.dir / "embeddings", image_id, values, list(novel_map.shape))
        base = read_label(run.dir / "high_base_pred" / f"{image_id}.png")
        label = fuse(base, embeddings, data.num_known)
        write_label(run.dir / "pseudo_labels" / f"{image_id}.png", label, settled=False)

    shares = dist.share(ids), dist.share(clusters)
    thread_map(write, *shares, desc="pseudo labels", leave=False, disable=None)
    dist.barrier()
    if dist.is_main():
        settle(run.dir)  # once for all files of the stage


def main(argv: list[str] | None = None) -> None:
    cfg = load_config(argv, __doc__, __file__, ("ncdss",))
    data = DiscoveryData.open(cfg)
    inputs = {"base_checkpoint": base_model(cfg, cfg.cluster.base_model)}
    if cfg.cluster.k == "auto" and cfg.cluster.assign != "kmeans":
        raise UserError(f"cluster.k=auto: cluster.assign={cfg.cluster.assign} has no objects to count; give a number")
    if cfg.cluster.assign == "oracle" and data.is_unknown:
        raise UserError(f"cluster.assign=oracle: split={cfg.split} does not know the novel classes; leave it out")
    if cfg.cluster.assign == "oracle" and cfg.cluster.k < len(data.novel_names):
        raise UserError(
            f"cluster.k={cfg.cluster.k}: cluster.assign=oracle has a cluster for each novel class of "
            f"split={cfg.split}; use at least {len(data.novel_names)}"
        )
    if cfg.cluster.features == "maskcontrast" and not cfg.cluster.features_checkpoint:
        raise UserError("cluster.features=maskcontrast: needs checkpoint=FILE, a network of pretrain_contrast.py")
    if cfg.cluster.names == "suggest" and cfg.cluster.assign != "kmeans":
        raise UserError(
            f"cluster.names=suggest: cluster.assign={cfg.cluster.assign} describes no objects; leave it out"
        )
    if cfg.cluster.features_checkpoint:
        inputs["features_checkpoint"] = cfg.cluster.features_checkpoint
    with start_run(cfg, f"pseudo{cfg.reference}", ("cluster",), inputs, files=data.context.files) as run:
        if run.finished:
            return
        model = build_model(cfg.model.model_copy(update={"init": "random"}), data.num_known)
        load_deeplab(model, inputs["base_checkpoint"])
        pixels = remove_base_classes(data, run.place(model), run)
        kept = keep_images(pixels, cfg.cluster.min_pixels)
        classes = true_classes(data, kept, run)
        clusters = assign_clusters(data, kept, classes, run)
        k = int(clusters.max()) if cfg.cluster.k == "auto" else cfg.cluster.k
        write_pseudo_labels(data, kept, clusters, k, run)
        sizes = np.bincount(clusters, minlength=k + 1)[1:].tolist()
        metrics = {"images": len(pixels), "kept": len(kept), "k": k, "cluster_sizes": sizes}
        if min(sizes) < FEW:
            few = [f"{number} ({size})" for number, size in enumerate(sizes, start=1) if size < FEW]
            log.warning("clusters of fewer than %d objects: %s; fewer clusters may do better", FEW, ", ".join(few))
        if classes is not None:
            metrics["purity"] = purity(clusters, classes)
            log.info("share of objects whose cluster's majority class is theirs: %.3f", metrics["purity"])
        if dist.is_main():
            write_json(run.dir / "clusters.json", {i: int(c) for i, c in zip(kept, clusters, strict=True)})
            write_list(run.dir / "novel.txt", kept)
            write_list(run.dir / "base.txt", list(data.lists.base))
            if data.is_unknown and not cfg.reference:
                set_aside(run.dir.parent, digest(run.dir / OF))
        log.info("kept %d of %d novel images; objects per cluster: %s", len(kept), len(pixels), sizes)
        run.finish(metrics)


if __name__ == "__main__":
    entry(main)
