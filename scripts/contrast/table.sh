#!/usr/bin/env bash
# Linear probe, k-means and retrieval of every network that was evaluated, beside the published figures;
# with several seeds also the difference to the first row over its standard error, marked (*) above 2.
#   scripts/contrast/table.sh [FOLDER ...] [--style text|markdown|latex]          a FOLDER is an output_dir
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
read_folders "$@"
[ ${#folders[@]} -gt 0 ] || folders=(output/probe_voc)
exec python collect.py --system probe "${options[@]}" "${folders[@]}"
