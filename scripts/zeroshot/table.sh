#!/usr/bin/env bash
# The paper's tables from what is trained: splits and methods, mean and deviation over seeds, the published values beside them.
# * from memory, confirmed by no second text; "not known" where we could not find the paper's value.
#   scripts/zeroshot/table.sh [FOLDER ...] [--style text|markdown|latex]          a FOLDER is the output_dir of one seed
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
read_folders "$@"
shopt -s nullglob
[ ${#folders[@]} -gt 0 ] || folders=(output/zeroshot_*)
[ ${#folders[@]} -gt 0 ] || { echo "error: nothing trained yet; run scripts/zeroshot/voc.sh first" >&2; exit 2; }
exec python collect.py --system zs3 "${options[@]}" "${folders[@]}"
