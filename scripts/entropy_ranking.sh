#!/usr/bin/env bash
# Rank the novel images of all folds by entropy and split them into clean and unclean.
#   DATA_ROOT=/data/VOCSegmentation GPUS=4 FOLDS="0 1" scripts/entropy_ranking.sh [key=value ...]
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
CONFIG=${CONFIG:-configs/discovery/pascal.yaml}
use_requirements requirements.txt -- "$CONFIG" "$@"
each_fold entropy_rank.py "$CONFIG" "$@"
