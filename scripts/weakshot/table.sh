#!/usr/bin/env bash
# Splits and methods of finished runs, mean and deviation over seeds, next to MaskFormer's published upper bounds.
#   scripts/weakshot/table.sh [FOLDER ...] [--style text|markdown|latex]          a FOLDER is the output_dir of one seed
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
read_folders "$@"
shopt -s nullglob
[ ${#folders[@]} -gt 0 ] || folders=(output/weakshot_*)
[ ${#folders[@]} -gt 0 ] || { echo "error: nothing trained yet; run scripts/weakshot/coco.sh first" >&2; exit 2; }
exec python collect.py --system simformer "${options[@]}" "${folders[@]}"
