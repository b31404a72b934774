#!/usr/bin/env bash
# The paper's table from finished runs: tasks and methods, mean and deviation over seeds, the published value, and the
# difference to PLOP over its standard error, with a star if significant (two-sided t-test, 5 %).
#   scripts/incremental/table.sh [FOLDER ...] [--style text|markdown|latex]          a FOLDER is the output_dir of one seed
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
read_folders "$@"
shopt -s nullglob
[ ${#folders[@]} -gt 0 ] || folders=(output/incremental_*)
[ ${#folders[@]} -gt 0 ] || { echo "error: nothing trained yet; run scripts/incremental/voc.sh first" >&2; exit 2; }
exec python collect.py --system ssul "${options[@]}" "${folders[@]}"
