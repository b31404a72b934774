"""Do two devices compute the same? Labels, logits and one training step of a trained network, in float32 and bfloat16.

    python -m benchmarks.devices output/demo/fold0/eums/best.pth datasets/demo/images --device cuda

Exit status 1 when they differ by more than rounding explains (LIMITS). Float32 is meant exactly, so TF32 is off here.
"""

import argparse
import copy
import time
from pathlib import Path

import torch

from data.io import find_images, read_image
from losses.cross_entropy import cross_entropy
from models.deeplab import DeepLabV3
from models.segmenter import load_segmenter

LIMITS = {  # share of pixels with another class, relative difference of the loss, of the gradient
    torch.float32: {"pixels": 1e-3, "loss": 1e-4, "gradient": 1e-2},
    torch.bfloat16: {"pixels": 2e-2, "loss": 2e-2, "gradient": 0.5},  # 8 bits, through a hundred layers and back
}


def measure(model: DeepLabV3, images: torch.Tensor, label: torch.Tensor, device: str, dtype: torch.dtype) -> dict:
    """Logits in evaluation mode; loss and gradient of a training step without dropout; its seconds."""
    model = copy.deepcopy(model).to(device, memory_format=torch.channels_last)
    images, label = images.to(device), label.to(device)
    low = torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)
    with torch.no_grad(), low:
        logits = model.eval()(model.normalize(images)).logits.float().cpu()
    model.train()
    model.classifier[0].project[-1].p = 0.0
    for _ in range(2):  # the first one warms up
        start = time.perf_counter()
        model.zero_grad()
        with low:
            loss = cross_entropy(model(model.normalize(images)).logits, label)
        loss.backward()
        seconds = (loss.item(), time.perf_counter() - start)[1]
    gradient = torch.cat([p.grad.float().cpu().flatten() for p in model.parameters() if p.grad is not None])
    return {"logits": logits, "loss": loss.item(), "gradient": gradient, "seconds": seconds}


def compare(one: dict, other: dict) -> dict[str, float]:
    """Differences of `other` from `one`: largest logit's, share of pixels with another class, loss's, gradient's."""
    changed = (one["logits"].argmax(1) != other["logits"].argmax(1)).float().mean()
    gradient = (one["gradient"] - other["gradient"]).norm() / one["gradient"].norm()
    return {
        "logit": (one["logits"] - other["logits"]).abs().max().item(),
        "pixels": changed.item(),
        "loss": abs(one["loss"] - other["loss"]) / abs(one["loss"]),
        "gradient": gradient.item(),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="best.pth of a training stage")
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("--device", default="cuda", help="compared with the CPU in float32")
    parser.add_argument("--count", type=int, default=8, help="images")
    options = parser.parse_args(argv)
    segmenter = load_segmenter(options.model)
    pictures = [segmenter.resize(read_image(p)) for p in find_images([options.images])[: options.count]]
    images = torch.stack([torch.from_numpy(picture.transpose(2, 0, 1)) for picture in pictures])
    reference = measure(segmenter.model, images, label := _labels(segmenter.model, images), "cpu", torch.float32)
    failed = False
    print(f"{len(images)} images of {images.shape[-1]} pixels, against the CPU in float32")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for dtype, limits in LIMITS.items():
        found = measure(segmenter.model, images, label, options.device, dtype)
        differences = compare(reference, found)
        failed |= any(differences[name] > limit for name, limit in limits.items())
        shown = ", ".join(f"{name} {value:.2g}" for name, value in differences.items())
        speed = reference["seconds"] / found["seconds"]
        print(f"{options.device} {str(dtype).removeprefix('torch.')}: {shown}; training step {speed:.1f} times as fast")
    print("FAIL: the devices differ" if failed else "the devices agree")
    return int(failed)


@torch.no_grad()
def _labels(model: DeepLabV3, images: torch.Tensor) -> torch.Tensor:
    """Something to learn: the network's own classes, shifted by some pixels."""
    return model.eval()(model.normalize(images)).logits.argmax(1).roll((5, 9), (1, 2))


if __name__ == "__main__":
    raise SystemExit(main())
