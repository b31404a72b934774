#!/usr/bin/env bash
# Train the base models of all folds.
#   DATA_ROOT=/data/VOCSegmentation GPUS=4 FOLDS="0 1" scripts/base_train.sh [key=value ...]
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
CONFIG=${CONFIG:-configs/discovery/pascal.yaml}
use_requirements requirements.txt -- "$CONFIG" "$@"
each_fold train_base.py "$CONFIG" "$@"
