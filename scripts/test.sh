#!/usr/bin/env bash
# Run the tests (under 10 minutes on 2 cores, no network, no GPU). Arguments go to pytest: scripts/test.sh tests/losses
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
use_requirements requirements.txt tests/requirements.txt
python -m ruff check .
python -m mypy  # half a minute the first time, then seconds
# in the order of the tree: the many short files of utils come last and balance the processes
exec python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder "$@"
