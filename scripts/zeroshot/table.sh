#!/usr/bin/env bash
# The paper's tables from finished runs: splits and methods, mean and deviation over seeds, next to the published values.
# * recalled, not verified against a second source; "not known" if the paper's value was not found.
#   scripts/zeroshot/table.sh [FOLDER ...] [--style text|markdown|latex]          a FOLDER is the output_dir of one seed
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
read_folders "$@"
shopt -s nullglob
[ ${#folders[@]} -gt 0 ] || folders=(output/zeroshot_*)
[ ${#folders[@]} -gt 0 ] || { echo "error: nothing trained yet; run scripts/zeroshot/voc.sh first" >&2; exit 2; }
exec python collect.py --system zs3 "${options[@]}" "${folders[@]}"
