#!/usr/bin/env bash
# The paper's table from what is trained: tasks and methods, mean and deviation over seeds, the published value.
#   scripts/ssul/table.sh [FOLDER ...] [--style text|markdown|latex]          a FOLDER is the output_dir of one seed
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
folders=() options=()
while [ $# -gt 0 ]; do
    case $1 in
        --*) options+=("$1" "$2"); shift ;;
        *) folders+=("$1"/*-overlap "$1"/*-disjoint) ;;
    esac
    shift
done
shopt -s nullglob
[ ${#folders[@]} -gt 0 ] || folders=(output/ssul_*/*-overlap output/ssul_*/*-disjoint)
existing=()
for folder in "${folders[@]}"; do if [ -d "$folder" ]; then existing+=("$folder"); fi; done
[ ${#existing[@]} -gt 0 ] || { echo "error: nothing trained yet; run scripts/ssul/voc.sh first" >&2; exit 2; }
exec python collect.py --tasks "${options[@]}" "${existing[@]}"
