"""What a training run left, in a form that is equal for equal runs: `fingerprint.py FOLDER` prints it.

Tensors of the last and the best checkpoint (model, optimizer, random states), history, metrics. Standard library only,
because the crash test calls it after every kill. Paths of the run (in the stored configuration) are left out.
"""

import hashlib
import json
import sys
import zipfile
from pathlib import Path


def tensors(path: Path) -> str:
    """sha256 of the raw tensors of a file written by torch.save, which is a zip archive."""
    sha = hashlib.sha256()
    with zipfile.ZipFile(path) as archive:
        for name in sorted(name for name in archive.namelist() if "/data/" in name):
            sha.update(name.encode() + archive.read(name))
    return sha.hexdigest()


def fingerprint(folder: Path) -> str:
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["config_sha256"]  # of a file that names the output folder
    history = (folder / "history.jsonl").read_text()
    networks = (folder / name for name in ("last.pth", "best.pth"))
    files = (f"{path.name} {tensors(path)}" for path in networks if path.exists())  # not every method picks a best
    return "\n".join([*files, history, json.dumps(metrics, sort_keys=True)])


if __name__ == "__main__":
    print(fingerprint(Path(sys.argv[1])))
