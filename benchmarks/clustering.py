"""PCA and k-means at the size of COCO-20i: one prototype for each of 60 602 novel images (fold 0).

python -m benchmarks.clustering --images 60602 --features 2048 --clusters 40
"""

import argparse
import resource
import time

import numpy as np

from utils.measure.clustering import cluster_prototypes, purity


def draw(images: int, features: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """L2-normalised prototypes [N, D] around one centre per class, and the classes 1..n [N]."""
    rng = np.random.default_rng(0)
    classes_of = rng.integers(0, classes, images)
    points = rng.standard_normal((classes, features)).astype(np.float32)[classes_of]
    points += rng.standard_normal((images, features), dtype=np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True), 1 + classes_of


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60602)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--clusters", type=int, default=40)
    parser.add_argument("--classes", type=int, default=20)
    options = parser.parse_args(argv)
    prototypes, classes = draw(options.images, options.features, options.classes)
    start = time.perf_counter()
    found = cluster_prototypes(prototypes, options.clusters, seed=0)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{options.images} prototypes of {options.features} features, {options.clusters} clusters: {seconds:.1f} s")
    print(f"prototypes {prototypes.nbytes / 2**30:.2f} GiB, peak memory of the process {peak:.2f} GiB")
    print(f"share of images whose cluster's majority class is theirs: {purity(found.ids, classes):.3f}")


if __name__ == "__main__":
    main()
