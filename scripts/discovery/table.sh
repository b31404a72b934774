#!/usr/bin/env bash
# The paper's table from finished evaluations: novel mIoU per fold, mean and deviation over seeds, the published value, and
# the difference to basic over its standard error, with a star if significant (two-sided t-test, 5 %).
#   scripts/discovery/table.sh [FOLDER ...] [--style text|markdown|latex]
#   scripts/discovery/table.sh output/pascal output/pascal_seed1 --style latex
# A FOLDER is the output_dir of one seed; default: output/pascal.
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
read_folders "$@"
[ ${#folders[@]} -gt 0 ] || folders=(output/pascal)
exec python collect.py --system ncdss --columns split "${options[@]}" "${folders[@]}"
