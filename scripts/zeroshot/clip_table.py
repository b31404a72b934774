"""Writes a table of CLIP text embeddings of class names, for data.embeddings (pip install open-clip-torch).

    python -m scripts.zeroshot.clip_table --dataset pascal --to pascal_clip.npz
    python -m scripts.zeroshot.clip_table --names "zebra, canoe" --model ViT-B-16 --weights openai --to clip.npz

The vector of a name is the normalised mean of the normalised embeddings of several sentences. open_clip downloads the
weights, or reads them from the file given by --weights.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from data.classes import load_classes
from data.embeddings import write_table
from utils.errors import UserError, missing_package
from utils.run import entry

SENTENCES = ("a photo of a {}.", "a photo of the {}.", "a photo of many {}.", "a close-up photo of a {}.", "{}")
WORDS = {  # names that the lists write as one word
    "diningtable": "dining table",
    "pottedplant": "potted plant",
    "tvmonitor": "tv monitor",
    "playingfield": "playing field",
    "bedclothes": "bed clothes",
    "waterdrops": "water drops",
}
Encode = Callable[[Sequence[str]], torch.Tensor]  # N sentences -> [N, D]


def load_encoder(model: str, weights: str) -> Encode:
    """The text encoder of a CLIP model. Raises UserError without open_clip, and for an unknown model or weights."""
    try:
        import open_clip
    except ImportError:
        raise missing_package("a table of CLIP embeddings", "open-clip-torch") from None
    try:
        network = open_clip.create_model(model, pretrained=weights).eval()
    except RuntimeError as error:
        raise UserError(f"--model {model} --weights {weights}: {str(error).splitlines()[0]}") from None
    tokenize = open_clip.get_tokenizer(model)
    return lambda sentences: network.encode_text(tokenize(list(sentences)))


@torch.inference_mode()
def text_vectors(names: Sequence[str], encode: Encode) -> np.ndarray:
    """Text embeddings float32 [N, D] of unit length."""
    rows = []
    for name in names:
        words = WORDS.get(name, name.replace("_", " ").replace("-", " "))
        vectors = torch.nn.functional.normalize(
            encode([sentence.format(words) for sentence in SENTENCES]).float(), dim=1
        )
        rows.append(torch.nn.functional.normalize(vectors.mean(0), dim=0))
    return torch.stack(rows).numpy()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="pascal", help="class list: a folder of data/splits, or with classes.yaml")
    parser.add_argument("--names", default="", help='further names, "zebra, canoe"')
    parser.add_argument("--model", default="ViT-B-32", help="architecture, as open_clip calls it")
    parser.add_argument("--weights", default="laion2b_s34b_b79k", help="open_clip's name of the weights, or a file")
    parser.add_argument("--to", type=Path, required=True, help="table to write, .npz")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    more = [name.strip() for name in options.names.split(",") if name.strip()]
    names = list(dict.fromkeys((*load_classes(options.dataset).names, *more)))
    vectors = text_vectors(names, load_encoder(options.model, options.weights))
    write_table(options.to, names, vectors)
    print(f"{options.to}: {vectors.shape[1]} numbers for each of {len(names)} names; use it with data.embeddings")
    return 0


if __name__ == "__main__":
    entry(main)
