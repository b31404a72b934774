"""The command line of prepare_data.py: sub-commands in the order of its help, and the kinds of faults of `check`."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from data.prepare.demo import DemoOptions

KINDS = {
    "list": "an unusable list, a repeated image, or an id of another layout",
    "missing": "no file for an image of a list",
    "damaged": "a truncated or corrupted file",
    "kind": "an unsupported bit depth or number of channels",
    "size": "a map of another size than its image",
    "value": "a mask value that is no class",
    "luminance": "grey levels of VOC's colours instead of class numbers",
    "palette": "VOC's colours at other numbers",
    "saliency": "no salient pixel, or no other",
    "turned": "an image with EXIF rotation; its map must fit the stored pixels",
    "overlap": "a training image in a validation list",
    "duplicate": "the same image under two names",
}


def parse(doc: str, argv: list[str] | None) -> argparse.Namespace:
    """The parsed arguments; `command` is the sub-command. `doc` is the help text."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command", metavar="|".join(COMMANDS))
    for name, add in COMMANDS.items():
        add(commands.add_parser(name))
    return parser.parse_args(argv)


def at_least(smallest: int) -> Callable[[str], int]:
    """An argparse type for integers from `smallest` on."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < smallest:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of {smallest} or more")
        return int(text)

    return number


def _workers(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--workers", type=at_least(1), default=os.cpu_count() or 1, help=what)


def _demo(command: argparse.ArgumentParser) -> None:
    command.add_argument("--root", type=Path, default=Path("datasets/demo"))
    command.add_argument("--seed", type=at_least(0), default=0)
    command.add_argument(
        "--saliency-error", type=float, default=DemoOptions.saliency_error, help="0: perfect maps, 1: mostly wrong"
    )


def _voc(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--root", type=Path, default=Path("datasets/pascal"), help="VOCdevkit/VOC2012, or a folder above"
    )
    command.add_argument("--sbd", type=Path, help="folder of SBD, benchmark_RELEASE; default: in --root")
    _workers(command, "processes that convert")


def _context(command: argparse.ArgumentParser) -> None:
    command.add_argument("--annotations", type=Path, required=True, help="folder with labels.txt and trainval/*.mat")
    command.add_argument("--images", type=Path, required=True, help="JPEGImages of VOC 2010 or 2012")
    command.add_argument("--lists", type=Path, help="folder with train.txt and val.txt; default: VOC 2010's")
    command.add_argument("--root", type=Path, default=Path("datasets/context"), help="data root to make")
    _workers(command, "processes that convert")


def _cocostuff(command: argparse.ArgumentParser) -> None:
    command.add_argument("--root", type=Path, default=Path("datasets/cocostuff10k"), help="folder of the download")
    _workers(command, "processes that convert")


def _ade(command: argparse.ArgumentParser) -> None:
    command.add_argument("--root", type=Path, default=Path("datasets/ade"), help="ADEChallengeData2016")


def _coco(command: argparse.ArgumentParser) -> None:
    command.add_argument("--images", type=Path, required=True, help="folder with train2014/ and val2014/")
    command.add_argument("--annotations", type=Path, required=True, help="folder with instances_{train,val}2014.json")
    command.add_argument("--root", type=Path, default=Path("datasets/coco"), help="data root to make")
    command.add_argument(
        "--masks",
        choices=("published", "correct"),
        default="published",
        help="published: first polygon of an object only, as the official code; correct: all of it, crowds ignored",
    )
    _workers(command, "processes that draw")


def _folder(command: argparse.ArgumentParser) -> None:
    command.add_argument("--images", type=Path, nargs="+", required=True, help="folders of photographs")
    command.add_argument(
        "--labels", type=Path, required=True, help="COCO file, or folder of index PNG, colour PNG or LabelMe files"
    )
    command.add_argument("--root", type=Path, required=True, help="data root to make, datasets/NAME")
    command.add_argument(
        "--colors", type=Path, help="of colour PNGs: lines name,red,green,blue, or CVAT's labelmap.txt"
    )
    command.add_argument("--names", type=Path, help="of index PNGs: a class per line, background first")
    command.add_argument("--val", type=float, default=0.2, help="share of the labelled photographs that validates")
    command.add_argument("--seed", type=at_least(0), default=0, help="decides which")
    command.add_argument("--config", type=Path, help="configuration to write; default: configs/NAME.yaml")
    _workers(command, "threads that read and write")


def _saliency(command: argparse.ArgumentParser) -> None:
    command.add_argument("--images", type=Path, required=True, help="folder of images")
    command.add_argument("--to", type=Path, required=True, help="folder for the maps, <name>.png")
    command.add_argument(
        "--model", default="u2net", help="u2net, u2netp or basnet with --weights; FILE.onnx; or spectral, without any"
    )
    command.add_argument("--weights", type=Path, help="u2net.pth, u2netp.pth or basnet.pth of their authors")
    command.add_argument("--raw", action="store_true", help="grey probabilities of all images instead of masks")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    _workers(command, "threads that read and write")


def _vectors(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--words",
        required=True,
        help="word2vec (.bin), fastText (.vec) or GloVe (.txt) file, also .gz; glove6b; a table",
    )
    command.add_argument(
        "--dataset", default="pascal", help="class list: a folder of data/splits, or with classes.yaml"
    )
    command.add_argument("--names", default="", help='further names, "zebra, canoe"')
    command.add_argument("--to", type=Path, required=True, help="table to write, .npz")


def _lists(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", nargs="+", help="CONFIG.yaml [key=value ...]")
    command.add_argument("--to", type=Path, required=True, help="folder for the lists")


def _check(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", nargs="+", help="CONFIG.yaml [key=value ...]")
    command.add_argument("--to", type=Path, help="table of the faults to write, .csv: kind, file, what")
    command.add_argument("--allow", default="", help=f"kinds that are listed and do no harm, of {', '.join(KINDS)}")


COMMANDS = {
    "demo": _demo,
    "voc": _voc,
    "context": _context,
    "cocostuff": _cocostuff,
    "ade": _ade,
    "coco": _coco,
    "folder": _folder,
    "saliency": _saliency,
    "vectors": _vectors,
    "lists": _lists,
    "check": _check,
}
