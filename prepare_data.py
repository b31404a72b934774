"""Make and check data sets.

python prepare_data.py demo  [--root datasets/demo] [--saliency-error 0.25]   draw the demo set
python prepare_data.py voc   --root VOCdevkit/VOC2012 [--sbd DIR]               VOC 2012 with the masks of SBD
python prepare_data.py context --annotations DIR --images DIR --root DIR      masks of Pascal-Context's 60 classes
python prepare_data.py cocostuff --root DIR                                    masks of COCO-Stuff-10K as PNG
python prepare_data.py ade   --root ADEChallengeData2016                      check ADE20K
python prepare_data.py coco  --images DIR --annotations DIR --root DIR        masks and lists of COCO 2014
python prepare_data.py folder --images DIR --labels DIR_OR_FILE --root DIR     your own photographs, some labelled
python prepare_data.py saliency --images DIR --to DIR [--model NAME] [--weights FILE] [--raw]   saliency maps
python prepare_data.py vectors --words FILE --dataset NAME --to FILE.npz      table of word vectors of the classes
python prepare_data.py lists CONFIG.yaml [key=value ...] --to DIR             image lists of a class split
python prepare_data.py check CONFIG.yaml [key=value ...] [--to faults.csv] [--allow KIND,...]   check every file that
                                                                              the configuration reads
"""

from utils.entry import quiet_interrupt

if __name__ == "__main__":
    quiet_interrupt()

import argparse
import contextlib
from pathlib import Path

from data.prepare.arguments import KINDS, parse
from data.prepare.demo import DemoOptions, build_demo, is_drawn
from utils.errors import UserError


def drawing(options: argparse.Namespace) -> DemoOptions:
    return DemoOptions(seed=options.seed, saliency_error=options.saliency_error)


if __name__ == "__main__":  # before the imports below, which take seconds
    given = parse(__doc__, None)
    with contextlib.suppress(UserError, OSError):  # main reports them
        if given.command == "demo" and is_drawn(given.root, drawing(given)):
            print(f"demo set: {given.root}")
            raise SystemExit(0)

from data.classes import load_classes
from data.discovery.builder import DiscoveryData
from data.discovery.lists import write_lists
from data.embeddings import look_up, write_table
from data.prepare.annotations import read_annotations
from data.prepare.check import Check, summary, write_faults
from data.prepare.coco import build_coco
from data.prepare.context import build_context
from data.prepare.folder import build_folder
from data.prepare.folder_config import write_config
from data.prepare.saliency import OVERVIEW, estimate_folder, spectral
from data.prepare.stuff import build_cocostuff, check_ade
from data.prepare.voc import build_voc
from models.saliency.estimator import load_estimator
from utils.checkpoint import digest, write_text
from utils.config.reader import load_config
from utils.device import find_device
from utils.report.tables import table
from utils.run import entry


def demo(options: argparse.Namespace) -> None:
    build_demo(options.root, drawing(options))
    print(f"demo set: {options.root}")


def voc(options: argparse.Namespace) -> None:
    for line in build_voc(options.root, options.sbd, options.workers):
        print(line)


def context(options: argparse.Namespace) -> None:
    for line in build_context(options.root, options.annotations, options.images, options.lists, options.workers):
        print(line)


def cocostuff(options: argparse.Namespace) -> None:
    for line in build_cocostuff(options.root, options.workers):
        print(line)


def ade(options: argparse.Namespace) -> None:
    for line in check_ade(options.root):
        print(line)


def coco(options: argparse.Namespace) -> None:
    counts = build_coco(options.root, options.images, options.annotations, options.masks, options.workers)
    print(f"{options.root}: " + ", ".join(f"{count} masks of {part}" for part, count in counts.items()))


def folder(options: argparse.Namespace) -> None:
    """Writes data root and configuration. An existing configuration is kept, as it may have been edited."""
    if not 0 < options.val < 1:
        raise UserError(f"--val {options.val}: not a share; give one between 0 and 1")
    annotations = read_annotations(options.labels, options.colors, options.names)
    how = {"labels": options.labels, "val": options.val, "seed": options.seed, "workers": options.workers}
    made = build_folder(options.root, options.images, annotations, **how)
    name = options.root.resolve().name
    config = options.config or Path("configs") / f"{name}.yaml"
    kept = config.exists()
    if not kept:
        write_text(config, write_config(made.facts(), options.root, name))
    print(f"{options.root}: {len(made.photos)} photographs; labels read as {made.kind}")
    print(table(made.table()))
    print(f"  without labels, to discover classes in: {len(made.lists['unlabelled'])}")
    print(
        f"  validation images drawn with --seed {options.seed}: {', '.join(made.lists['val'][:5])} ... (sets/val.txt)"
    )
    if made.without_photo:
        print(f"  labels without a photograph, left out: {len(made.without_photo)} ({made.without_photo[0]} ...)")
    print(f"{config}: {'kept as it is' if kept else 'written'}; next: saliency maps, see docs/own_data.md")


def saliency(options: argparse.Namespace) -> None:
    """Writes a 0/255 PNG per image with an object, saliency.json, no_mask.txt and overview.jpg."""
    if options.model == "spectral" and options.weights:
        raise UserError(f"--weights {options.weights}: --model spectral has none; leave it out, or choose a network")
    if options.model == "spectral":
        estimator = spectral
    else:
        estimator = load_estimator(options.model, options.weights, find_device(options.device))
    file = Path(options.model) if options.model.endswith(".onnx") else options.weights
    settings = {"model": "onnx" if file and file.suffix == ".onnx" else options.model, "weights": file and digest(file)}
    counts = estimate_folder(
        options.images, options.to, estimator, raw=options.raw, settings=settings, workers=options.workers
    )
    print(f"{options.to}: {counts[0]} maps, {counts[1]} images without an object; {options.to / OVERVIEW} shows some")


def vectors(options: argparse.Namespace) -> None:
    if options.to.exists() and Path(options.words).exists() and options.to.samefile(options.words):
        raise UserError(f"--to {options.to}: is the file of word vectors itself; choose another one")
    more = [name.strip() for name in options.names.split(",") if name.strip()]
    names = list(dict.fromkeys((*load_classes(options.dataset).names, *more)))
    found = look_up(names, options.words, options.dataset)
    write_table(options.to, names, found)
    print(f"{options.to}: {found.shape[1]} numbers for each of {len(names)} names; for data.embeddings={options.to}")


def open_discovery(options: argparse.Namespace) -> DiscoveryData:
    return DiscoveryData.open(load_config(options.config, __doc__, systems=("ncdss",)))


def lists(options: argparse.Namespace) -> None:
    data = open_discovery(options)
    if data.is_unknown:
        raise UserError(f"split={data.cfg.split}: reads train.txt, unlabelled.txt and val.txt as they are; edit those")
    write_lists(data.lists, data.groups.name, options.to, data.context.layout)
    print(f"{options.to}: lists of {data.groups.name}; use them with data.lists={options.to}")


def check(options: argparse.Namespace) -> None:
    """Prints every fault. Raises UserError with counts by kind if a fault is of a kind that is not allowed."""
    allowed = [kind for kind in options.allow.split(",") if kind]
    unknown = next((kind for kind in allowed if kind not in KINDS), None)
    if unknown:
        raise UserError(f"--allow {unknown}: no kind of fault; they are {', '.join(KINDS)}")
    checked = Check(load_config(options.config, __doc__))
    for line in checked.lines():
        print(line)
    for fault in checked.faults:
        print(f"{fault.kind:10}{fault.file}: {fault.what}")
    if options.to:
        write_faults(options.to, checked.faults)
    found = summary(checked.faults, allowed)
    if found:
        raise UserError(f"{found} ({options.to if options.to else '--to faults.csv keeps them'})")


COMMANDS = {
    "demo": demo,
    "voc": voc,
    "context": context,
    "cocostuff": cocostuff,
    "ade": ade,
    "coco": coco,
    "folder": folder,
    "saliency": saliency,
    "vectors": vectors,
    "lists": lists,
    "check": check,
}


def main(argv: list[str] | None = None) -> int:
    options = parse(__doc__, argv)
    COMMANDS[options.command](options)
    return 0


if __name__ == "__main__":
    entry(main)
