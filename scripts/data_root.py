"""Prints the data root of CONFIG.yaml [key=value ...]; exit status 2 if the folder does not exist.

Needs no package, because the scripts call it before they install any (scripts/env.sh). The result is that of the full
reader of configurations (tests/scripts/test_data_root.py).
"""

import os
import re
import sys
from pathlib import Path


def written(path: Path, key: str) -> str | None:
    """The first value of a key in a YAML file, at any level, without quotes."""
    lines = (re.sub(r"(^|\s)#.*", "", line) for line in path.read_text(encoding="utf-8").splitlines())
    found = re.search(rf"(?:^|[\s{{,]){key}:[ ]+([^\s,}}]+)", "\n".join(lines))
    return found[1].strip("\"'") if found else None


def data_root(config: Path, pairs: list[str]) -> Path:
    """The first data root found in: command line, file, the file that it extends, $DATA_ROOT, datasets/<dataset>."""
    below = written(config, "base")
    files = [config, *([config.parent / Path(below).expanduser()] if below else [])]

    def value(key: str) -> str | None:
        given = [pair.split("=", 1)[1] for pair in pairs if pair.startswith(f"data.{key}=")]
        found = given[-1] if given else next(filter(None, (written(file, key) for file in files)), None)
        return None if found in ("null", "~", "") else found

    dataset = Path(value("dataset") or "pascal").name
    return Path(value("root") or os.environ.get("DATA_ROOT") or Path("datasets") / dataset).expanduser()


def main(argv: list[str]) -> int:
    try:
        root = data_root(Path(argv[0]), argv[1:])
    except OSError as error:
        print(f"error: {argv[0]}: {error.strerror}; nothing was installed", file=sys.stderr)
        return 2
    if not root.is_dir():
        cure = "set data.root or $DATA_ROOT (layout: README, section Data); nothing was installed"
        print(f"error: data.root={root}: no such folder; {cure}", file=sys.stderr)
        return 2
    print(root)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
