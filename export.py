"""Rewrite a weights file for other programs: official NCDSS key names, torchvision's, or this project's.

--to official      for the scripts of the official code: a bare state dict, of EUMS with student, teacher and queue
--to torchvision   for deeplabv3_resnet50(aux_loss=None, num_classes=C).load_state_dict; of EUMS the student
--to ours          a checkpoint of this project, from any of them (every stage also reads them as they are)

    python export.py output/pascal/fold0/eums/best.pth eums_f0.pth.tar --to official
"""

from utils import begin

if __name__ == "__main__":  # before the imports below, which take seconds
    begin.quiet()

import argparse
import sys
from pathlib import Path

from models.deeplab_files import read_networks, to_official
from utils import checkpoint
from utils.errors import UserError
from utils.run import entry
from utils.torch_file import save_torch


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a checkpoint, ours, official or torchvision's")
    parser.add_argument("target", type=Path, help="file to write")
    parser.add_argument("--to", choices=("official", "torchvision", "ours"), required=True)
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    if options.target.resolve() == options.source.resolve():
        raise UserError(f"{options.target}: is the source; give another file")
    networks = read_networks(options.source)
    if options.to == "ours":
        several = {f"{name}.{key}": value for name, state in networks.items() for key, value in state.items()}
        checkpoint.save(options.target, {"model": several if len(networks) > 1 else networks["student"]})
    else:
        state = to_official(networks) if options.to == "official" else networks["student"]
        with checkpoint.atomic(options.target) as temporary:
            save_torch(temporary, state)
    print(f"{options.target}: {' and '.join(networks) if len(networks) > 1 else 'one network'}, {options.to} names")
    return 0


if __name__ == "__main__":
    entry(main)
