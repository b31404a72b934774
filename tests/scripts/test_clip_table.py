import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.embeddings import read_table
from scripts.zeroshot import clip_table
from utils.run import guarded

D = 8


def encode(sentences) -> torch.Tensor:
    """A vector that depends on the words and is not of unit length."""
    return torch.stack(
        [torch.arange(1.0, 1 + D) + len(sentence) * torch.eye(D)[len(sentence) % D] for sentence in sentences]
    )


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """open_clip as far as it is used; what it was asked for."""
    asked: list[str] = []

    def tokenize(sentences):
        asked.extend(sentences)
        return sentences

    network = SimpleNamespace(eval=lambda: SimpleNamespace(encode_text=encode))
    module = SimpleNamespace(create_model=lambda name, pretrained: network, get_tokenizer=lambda name: tokenize)
    monkeypatch.setitem(sys.modules, "open_clip", module)
    return asked


def test_a_table_of_unit_vectors(asked, tmp_path):
    path = tmp_path / "clip.npz"
    assert guarded(clip_table.main, ["--dataset", "pascal", "--names", "zebra, cow", "--to", str(path)]) == 0
    table = read_table(path)
    assert len(table.names) == 22 and table.names[-1] == "zebra" and table.vectors.shape == (22, D)
    assert np.linalg.norm(table.vectors, axis=1) == pytest.approx(1)
    assert "a photo of a potted plant." in asked and len(asked) == 22 * len(clip_table.SENTENCES)
    rows = encode([sentence.format("cow") for sentence in clip_table.SENTENCES]).numpy()
    mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(0)
    assert table.vectors[10] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)


def test_without_the_package_it_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    assert guarded(clip_table.main, ["--to", str(tmp_path / "clip.npz")]) == 2
    assert "a table of CLIP embeddings needs open-clip-torch (pip install open-clip-torch;" in capsys.readouterr().err
    assert not (tmp_path / "clip.npz").exists()
