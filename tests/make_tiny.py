"""Write the tiny data set of the tests and its configuration: `make_tiny.py FOLDER`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests.conftest import make_voc, write_tiny

    folder = Path(sys.argv[1])
    print(write_tiny(folder, make_voc(folder / "voc", train=16, val=8)))
