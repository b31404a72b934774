"""A configuration for the user's own photographs, with sizes derived from their number and size."""

import math
from dataclasses import dataclass
from pathlib import Path

CELLS = 3  # feature cells along the side of a typical object
STRIDE = 16  # output stride
SIDES = (128, 512)  # smallest and largest side of the network input
LEAST_OBJECT = 0.008  # share of the image; the published 1500 pixels in a VOC image
CACHE_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Facts:
    """Images per list; medians of longest side, area (pixels), and share of an image that a class covers."""

    train: int
    unlabelled: int
    side: int
    area: int
    object_share: float


def image_size(facts: Facts) -> int:
    """Side of the network input, a multiple of 32, at which a typical object is CELLS feature cells wide."""
    wanted = CELLS * STRIDE / math.sqrt(max(facts.object_share, 1e-6))
    return int(min(max(math.ceil(wanted / 32) * 32, SIDES[0]), SIDES[1], max(facts.side // 32 * 32, SIDES[0])))


def batch_size(images: int, most: int) -> int:
    """The largest power of two up to `most` that gives two batches of `images`; at least 2."""
    return max(2, min(most, 2 ** int(math.log2(max(images / 2, 2)))))


def write_config(facts: Facts, root: Path, name: str) -> str:
    """The text of a configuration file; network and rates are those of configs/demo/discovery.yaml."""
    size = image_size(facts)
    images = facts.train + facts.unlabelled
    cache = images * 3 * (2 * size) ** 2 < CACHE_BYTES
    base, novel = batch_size(facts.train, 16), batch_size(int(0.67 * min(facts.unlabelled, facts.train)), 8)
    steps = max(12, min(100, math.ceil(facts.train / base)))
    return f"""\
# Class discovery in your own photographs: docs/own_data.md. Written by prepare_data.py folder for
# {facts.train} labelled training images and {facts.unlabelled} images without labels; edit it as you like.
#   scripts/discover.sh THIS_FILE
system: ncdss
split: unknown
output_dir: "output/{name}"

data:
  dataset: "{root}"
  root: "{root}"
  layout: folder
  image_size: {size}  # a typical labelled object is at least {CELLS} feature cells wide at this size
  max_side: {2 * size}  # decoded images are shrunk to this longest side
  cache: {str(cache).lower()}
  workers: {0 if cache else 4}
  missing: drop  # photographs without a salient object have no saliency map

model:
  backbone: efficientnet_lite0  # resnet50 on a GPU
  decoder: mlp  # light, over the levels of the trunk
  freeze: true  # false trains the trunk; for many labelled photographs
  output_stride: 32
  head_channels: 128
  dropout: 0.1

base_training:
  epochs: 12
  iters_per_epoch: {steps}
  batch_size: {base}
  optimizer: adamw
  lr: 0.003
  weight_decay: 0.01
  schedule: poly_steps
  milestones: []
  eval_every: 6

cluster:
  k: auto  # or a number
  min_pixels: {max(30, round(LEAST_OBJECT * facts.area))}  # {100 * LEAST_OBJECT:g} % of a median photograph
  features_size: {max(size, 320)}
  features_stride: 32
  pca_dim: {max(2, min(32, facts.unlabelled // 4))}
  whiten: false  # better on photographs, see docs/discovery.md

basic:
  epochs: 10
  iters_per_epoch: {max(20, steps)}
  batch_size: {novel}
  optimizer: adamw
  lr: 0.003
  weight_decay: 0.01
  schedule: poly_steps
  milestones: []
  eval_every: 5

eums:
  epochs: 10
  iters_per_epoch: {max(20, steps)}
  batch_size: {novel}
  optimizer: adamw
  lr: 0.003
  weight_decay: 0.01
  schedule: poly_steps
  milestones: []
  rampup_length: 5
  reassign_epochs: []  # needs a student that has learned the rare clusters, see docs/discovery.md
  eval_every: 5
  teacher_momentum: 0.97

evaluation:
  split: last  # no labels to choose the best epoch for unknown classes
  absent: skip  # a class may be missing from the validation images
"""
