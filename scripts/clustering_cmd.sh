#!/usr/bin/env bash
# Pseudo-labels of all folds: remove base classes, cluster the rest (official stages 2 to 5).
#   DATA_ROOT=/data/VOCSegmentation GPUS=4 FOLDS="0 1" scripts/clustering_cmd.sh [key=value ...]
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
CONFIG=${CONFIG:-configs/discovery/pascal.yaml}
use_requirements requirements.txt -- "$CONFIG" "$@"
each_fold cluster_pseudolabel.py "$CONFIG" "$@"
