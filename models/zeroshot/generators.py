"""ZS3Net (Bucher et al., NeurIPS 2019): generators of pixel features from word vectors, and their network.

N pixels or nodes, D features, E length of a word vector, Z length of the noise, C classes.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from models.output import Output
from models.segmentation import SegmentationNet
from models.weights import WeightsFile, load_strict, read_weights
from utils.errors import UserError

SLOPE, DROPOUT, BIAS = 0.2, 0.5, 0.01  # of LeakyReLU; between the layers; biases at the start
MLP, GRAPH = "generator.", "graph_generator."  # prefixes in our checkpoints


class Generator(nn.Module):
    """Linear, LeakyReLU, dropout, linear; one linear map if `hidden` is 0. Keys as in the official files."""

    def __init__(self, vector: int, noise: int, features: int, hidden: int = 256):
        super().__init__()
        inputs = vector + noise
        between = [nn.LeakyReLU(SLOPE), nn.Dropout(DROPOUT), nn.Linear(hidden, features)] if hidden else []
        self.model = nn.Sequential(nn.Linear(inputs, hidden or features), *between)
        for layer in self.model:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.constant_(layer.bias, BIAS)

    @property
    def inputs(self) -> int:
        """E + Z."""
        first = self.model[0]
        assert isinstance(first, nn.Linear)
        return first.in_features

    def forward(self, vectors: torch.Tensor, noise: torch.Tensor, which: torch.Tensor | None = None) -> torch.Tensor:
        """Features [..., N, D] of word vectors [..., N, E] and noise [..., N, Z].

        One vector may serve all features, [..., 1, E]; or `which` [N] selects the row of `vectors` for each feature.
        """
        first = self.model[0]
        assert isinstance(first, nn.Linear)
        word, rest = first.weight.split([vectors.shape[-1], noise.shape[-1]], dim=1)
        # equals the layer on the concatenation, without a copy of the word vector for every pixel
        part = F.linear(vectors, word, first.bias)
        return self.model[1:](F.linear(noise, rest) + (part if which is None else part[which]))


class GraphConvolution(nn.Module):
    """X' = A (X W) + b (Kipf and Welling, 2017), W stored as [in, out]."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(inputs, outputs)))
        self.bias = nn.Parameter(torch.full((outputs,), BIAS))

    def forward(self, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        return torch.sparse.mm(adjacency, x @ self.weight) + self.bias


class GraphGenerator(nn.Module):
    """The generator with graph convolutions in place of linear maps; a node is a connected region of one class."""

    def __init__(self, vector: int, noise: int, features: int, hidden: int = 256):
        super().__init__()
        self.gcn1 = GraphConvolution(vector + noise, hidden)
        self.dropout = nn.Dropout(DROPOUT)
        self.gcn2 = GraphConvolution(hidden, features)

    def forward(self, vectors: torch.Tensor, noise: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        """Features [N, D] of nodes with word vectors [N, E], noise [N, Z] and neighbours [N, N] (sparse)."""
        x = F.leaky_relu(self.gcn1(torch.cat([vectors, noise], dim=1), adjacency), SLOPE)
        return self.gcn2(self.dropout(x), adjacency)


class ZeroShotNet(nn.Module):
    """A network and its generators. Keys: network.*, generator.*, graph_generator.*, vectors.

    In step 2 the generators and the network's classifier train. With `frozen` the network stays in evaluation mode;
    otherwise BatchNorm and dropout are in training mode, and running statistics change (official code).
    """

    vectors: torch.Tensor

    def __init__(self, network: SegmentationNet[nn.Conv2d], vectors: torch.Tensor, settings, graph: bool = False):
        super().__init__()
        self.network, self.frozen = network.requires_grad_(False), settings.bn == "frozen"
        network.classifier.requires_grad_(True)
        self.register_buffer("vectors", vectors.float().clone())
        sizes = (vectors.shape[1], settings.noise_dim, network.classifier.in_channels, settings.hidden)
        if graph and not settings.hidden:
            raise UserError("zs3.hidden=0: the graph generator has two layers; give their width")
        self.generator = Generator(*sizes)
        self.graph_generator = GraphGenerator(*sizes) if graph else None

    def train(self, mode: bool = True) -> "ZeroShotNet":
        super().train(mode)
        self.network.train(mode and not self.frozen)
        return self

    def start_classifier(self, how: str) -> None:
        """uniform: weights and biases drawn from [0, 1), as in the official code; keep: those of step 1."""
        if how == "uniform":
            for parameter in self.network.classifier.parameters():
                nn.init.uniform_(parameter)

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        return self.network.normalize(image)

    def forward(self, image: torch.Tensor) -> Output:
        return self.network(image)


class DeviseNet(nn.Module):
    """DeViSE-like baseline: the network predicts a vector per pixel; logits are its cosines with the word vectors."""

    vectors: torch.Tensor

    def __init__(self, network: SegmentationNet[nn.Conv2d], vectors: torch.Tensor):
        super().__init__()
        self.network = network  # with E outputs
        self.register_buffer("vectors", vectors.float().clone())

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        return self.network.normalize(image)

    def forward(self, image: torch.Tensor) -> Output:
        vector, features = self.network(image)
        words = F.normalize(self.vectors, dim=1)
        return Output(torch.einsum("bdhw,cd->bchw", F.normalize(vector.float(), dim=1), words), features)

    def decoder_parameters(self) -> list[nn.Parameter]:
        return self.network.decoder_parameters()

    def backbone_parameters(self) -> list[nn.Parameter]:
        return self.network.backbone_parameters()


def read_generator(source: Path | WeightsFile, device: torch.device | str = "cpu") -> Generator:
    """The generator in a file of step 2, ours or an official `generator` file; its sizes follow from the weights.

    Raises UserError for a file without a generator, such as one of step 1 or an official segmentation file.
    """
    file = read_weights(source)
    state = _part(file, MLP) or {key: value for key, value in file.state.items() if key.startswith("model.")}
    return _filled(file, state, "model.0.weight", graph=False).to(device)  # type: ignore[return-value]


def read_graph_generator(source: Path | WeightsFile) -> GraphGenerator:
    """The graph generator in a file of method zs3_gc, ours or official (key `state_dict_GCN`)."""
    file = read_weights(source)
    official = file.extra.get("state_dict_GCN")
    state = _part(file, GRAPH) or (official if isinstance(official, dict) else {})
    state = {key.removeprefix("module."): value for key, value in state.items()}
    return _filled(file, state, "gcn1.weight", graph=True)  # type: ignore[return-value]


def holds_generator(file: WeightsFile) -> bool:
    """Whether a file has a generator, which classifiers of new classes need."""
    return any(key.startswith((MLP, "model.")) for key in file.state)


def _filled(file: WeightsFile, state: dict[str, torch.Tensor], first: str, graph: bool) -> nn.Module:
    if first not in state:
        kind = "graph generator" if graph else "generator"
        raise UserError(f"{file.path}: holds no {kind} (its keys begin with {file.starts()}); give a file of step 2")
    inputs, hidden = state[first].shape if graph else reversed(state[first].shape)
    last = "gcn2.bias" if graph else "model.3.bias"
    features = len(state[last]) if last in state else hidden
    width = hidden if last in state else 0
    module: nn.Module = (GraphGenerator if graph else Generator)(inputs, 0, features, width)
    load_strict(module, state, file.path, "give a file of step 2")
    return module.eval()


def _part(file: WeightsFile, prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in file.state.items() if key.startswith(prefix)}
