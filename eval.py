"""Evaluate a network of any system in one pass over the validation set; stage 6 of 6 of class discovery.

reads   the checkpoints of a finished stage (class discovery: best and last epoch of method=base|basic|eums;
        class-incremental: the last step of the method), or checkpoint=FILE, ours or official, recognised by its keys
writes  <output_dir>/<split>/eval_<stage>/{metrics.json, confusion.npy}; with save_predictions=true predictions/*.png;
        for checkpoint=FILE also model.pth with the classes of its outputs, for predict.py

    python eval.py configs/demo/discovery.yaml method=eums
    python eval.py configs/discovery/pascal.yaml split=fold1 checkpoint=eums_f1.pth.tar save_predictions=true
    python eval.py configs/incremental/voc.yaml task=15-1 checkpoint=best.pth
"""

from utils.entry import answer
from utils.report.scores import show_scores

if __name__ == "__main__":  # before the imports below, which take seconds
    answer(__doc__, __file__, show=show_scores)

from pathlib import Path
from typing import Any

from torch import nn

from data.io import write_array
from data.predictions import map_writer, relabel
from data.protocol import SystemData, open_data
from models.segmenter import Segmenter, load_segmenter
from utils import checkpoint, dist
from utils.config.reader import load_config
from utils.errors import UserError
from utils.measure.confusion import Counts
from utils.measure.protocol import Classes, EvalProtocol, label_maps, number_table
from utils.run import Run, entry, start_run
from utils.run_folder import trained_files

READS = ("save_predictions", "checkpoint")


def load_networks(paths: dict[str, Path], run: Run) -> dict[str, Segmenter]:
    """The networks by origin; further networks only if their weights differ from the first."""
    networks = {origin: load_segmenter(path, run.cfg) for origin, path in paths.items()}
    first, *others = networks
    return {name: networks[name] for name in (first, *(name for name in others if _differ(networks, first, name)))}


def with_own_classes(network: Segmenter, data: SystemData) -> Segmenter:
    """The network with outputs for the classes that the configuration adds. Raises UserError if it cannot have any."""
    own = data.own_classes()
    if own is None:
        return network
    if network.extend is None:
        raise UserError(f"{network.path}: accepts no other classes than those it was trained on; leave `classes` out")
    return network.extend(*own)


def _differ(networks: dict[str, Segmenter], one: str, other: str) -> bool:
    states = (networks[name].model.state_dict().values() for name in (one, other))
    return not all(a.equal(b) for a, b in zip(*states, strict=True))


def evaluate(networks: dict[str, Segmenter], protocol: EvalProtocol, run: Run) -> dict[str, Any]:
    """Metrics of the first network; `compared` has the mIoU of all networks for each rule of matching clusters."""
    models, decide = [run.place(network.model) for network in networks.values()], next(iter(networks.values())).decide
    images, folder = protocol.images, run.dir / "predictions"
    save = map_writer(folder, images, protocol.spec.num_outputs) if run.cfg.save_predictions else None
    maps = label_maps(models, decide, protocol.loader, run, "evaluation", protocol.sweep, protocol.sized)
    counts = protocol.count(maps, run, len(models), save)
    metrics = protocol.metrics(counts)
    if save:
        table = number_table(protocol.classes(metrics))  # clusters without a class get the ignored value
        relabel(folder, folder, lambda _: table)
    if dist.is_main():
        matrix = counts.network if counts.native is None else counts.native
        write_array(run.dir / "confusion.npy", matrix[0].numpy())
    if protocol.sweep:
        metrics["sweep"] = protocol.sweep.curve(protocol.spec.names)
    compared = compare(list(networks), protocol, counts)
    return metrics | {"compared": compared, "protocol": protocol.name, "images": len(images)} | protocol.about


def compare(origins: list[str], protocol: EvalProtocol, counts: Counts) -> list[dict[str, Any]]:
    """mIoU of every network with every matching rule: the effect of choices that use validation labels."""
    rows = []
    for place, origin in enumerate(origins):
        for rule in protocol.spec.rules or ("official",):
            metrics = protocol.metrics(counts, place, rule)
            scores = {key: value for key, value in metrics.items() if key.endswith("miou")}
            rows.append({"model": origin, "matching": rule, **scores})
    return rows


def save_model(model: nn.Module, classes: Classes, metrics: dict[str, Any], run: Run) -> None:
    """Writes model.pth for predict.py: weights, configuration and classes of the outputs."""
    if dist.is_main():
        about = {"metrics": metrics, "classes": classes, "config": run.cfg.model_dump(mode="json")}
        checkpoint.save(run.dir / "model.pth", {"model": model.state_dict(), **about})


def main(argv: list[str] | None = None) -> int:
    cfg = load_config(argv, __doc__, __file__)
    data, given = open_data(cfg), cfg.checkpoint
    if given:
        network = with_own_classes(load_segmenter(given, cfg), data)
        stage, paths = data.evaluation(network).stage, {"given file": given}
        if dist.is_main():
            print(f"{given}: {network.flavour}, {network.num_outputs} outputs, evaluated as {stage}")
    else:
        stage, paths = trained_files(cfg, data.context.files)
    reads = (*cfg.scored_by, *READS)
    inputs = {"checkpoint": next(iter(paths.values()))}
    with start_run(cfg, f"eval_{stage}", reads, inputs, files=data.context.files) as run:
        if not run.finished:
            networks = {"given file": network} if given else load_networks(paths, run)
            if not given:
                networks = {name: with_own_classes(network, data) for name, network in networks.items()}
            first = next(iter(networks.values()))
            protocol = data.evaluation(first)
            metrics = evaluate(networks, protocol, run)
            if given:
                save_model(first.model, protocol.classes(metrics), metrics, run)
            run.finish(metrics | {"checkpoint": str(next(iter(paths.values())))})
    return show_scores(cfg, run.dir)


if __name__ == "__main__":
    entry(main)
