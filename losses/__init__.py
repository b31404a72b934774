"""Losses: one file per method, pure functions of tensors.

`name` and `name_plain`. `name` is what training calls. Where it is written for speed or memory, `name_plain` next to it
is the formula of the paper in a few lines of tensor code; tests/losses compare both in value and gradient. A function
without a plain twin is the formula itself. Plain forms compute in the dtype of their inputs.

Citations name the paper and the number of the equation where it has one. Where paper and released code differ, the
docstring says so, and the code follows what produced the published figures.

Shared conventions:

- `label` holds class numbers; 255 is the ignore index (65535 in int32 labels, see utils.labels).
- A batch without a pixel that counts has loss 0 and zero gradients, where most released programs return NaN.
- `pixels`, `total`, `num_masks` and `images` replace the denominator. Several processes pass its mean over the
  processes: the mean of their losses is then the loss of the whole batch.
"""
