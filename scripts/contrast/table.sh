#!/usr/bin/env bash
# Linear probe, k-means and retrieval of all evaluated networks next to the published figures. With several seeds, also
# the difference to the first row over its standard error, with a star if significant (two-sided t-test, 5 %).
#   scripts/contrast/table.sh [FOLDER ...] [--style text|markdown|latex]          a FOLDER is an output_dir
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
read_folders "$@"
[ ${#folders[@]} -gt 0 ] || folders=(output/probe_voc)
exec python collect.py --system probe "${options[@]}" "${folders[@]}"
