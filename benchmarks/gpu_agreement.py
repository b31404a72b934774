"""Whether a device computes what the CPU computes: logits and one training step of a trained DeepLabV3.

`python -m benchmarks.gpu --agree MODEL IMAGES` compares float32 (without TF32) and bfloat16 on the device with float32
on the CPU. Differences above LIMITS are more than rounding.
"""

import copy
import time
from pathlib import Path

import torch

from data.io import find_images, read_image
from losses.cross_entropy import cross_entropy
from models.segmentation import SegmentationNet
from models.segmenter import load_segmenter

COUNT = 8  # images
# share of pixels with another class; relative difference of the loss, and of the gradient (in bfloat16 8 significant
# bits through a hundred layers and back)
LIMITS = {
    torch.float32: {"pixels": 1e-3, "loss": 1e-4, "gradient": 1e-2},
    torch.bfloat16: {"pixels": 2e-2, "loss": 2e-2, "gradient": 0.5},
}


def measure(model: SegmentationNet, images: torch.Tensor, label: torch.Tensor, device: str, dtype: torch.dtype) -> dict:
    """Logits in evaluation mode; loss, gradient and seconds of a training step without dropout."""
    model = copy.deepcopy(model).to(device, memory_format=torch.channels_last)
    images, label = images.to(device), label.to(device)
    low = torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)
    with torch.no_grad(), low:
        logits = model.eval()(model.normalize(images)).logits.float().cpu()
    model.train()
    model.decoder.dropout.p = 0.0
    for _ in range(2):  # the first is a warm-up
        start = time.perf_counter()
        model.zero_grad()
        with low:
            loss = cross_entropy(model(model.normalize(images)).logits, label)
        loss.backward()
        seconds = (loss.item(), time.perf_counter() - start)[1]
    gradient = torch.cat([p.grad.float().cpu().flatten() for p in model.parameters() if p.grad is not None])
    return {"logits": logits, "loss": loss.item(), "gradient": gradient, "seconds": seconds}


def compare(one: dict, other: dict) -> dict[str, float]:
    """Largest difference of a logit, share of pixels with another class, relative differences of loss and gradient."""
    changed = (one["logits"].argmax(1) != other["logits"].argmax(1)).float().mean()
    gradient = (one["gradient"] - other["gradient"]).norm() / one["gradient"].norm()
    return {
        "logit": (one["logits"] - other["logits"]).abs().max().item(),
        "pixels": changed.item(),
        "loss": abs(one["loss"] - other["loss"]) / abs(one["loss"]),
        "gradient": gradient.item(),
    }


def devices_agree(model: Path, folder: Path, device: str) -> bool:
    """Prints the differences of a trained network (best.pth) on images of a folder; False if one is above its limit."""
    segmenter = load_segmenter(model)
    pictures = [segmenter.resize(read_image(p)) for p in find_images([folder])[:COUNT]]
    images = torch.stack([torch.from_numpy(picture.transpose(2, 0, 1)) for picture in pictures])
    reference = measure(segmenter.model, images, label := _labels(segmenter.model, images), "cpu", torch.float32)
    failed = False
    print(f"{len(images)} images of {images.shape[-1]} pixels, against the CPU in float32")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for dtype, limits in LIMITS.items():
        found = measure(segmenter.model, images, label, device, dtype)
        differences = compare(reference, found)
        failed |= any(differences[name] > limit for name, limit in limits.items())
        shown = ", ".join(f"{name} {value:.2g}" for name, value in differences.items())
        speed = reference["seconds"] / found["seconds"]
        print(f"{device} {str(dtype).removeprefix('torch.')}: {shown}; training step {speed:.1f} times as fast")
    print("FAIL: the devices differ" if failed else "the devices agree")
    return not failed


@torch.no_grad()
def _labels(model: SegmentationNet, images: torch.Tensor) -> torch.Tensor:
    """Labels with a non-zero loss: the predicted classes, shifted by some pixels."""
    return model.eval()(model.normalize(images)).logits.argmax(1).roll((5, 9), (1, 2))
