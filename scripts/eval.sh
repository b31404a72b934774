#!/usr/bin/env bash
# Evaluate EUMS on all folds and save the predictions. METHOD=basic or METHOD=base evaluates another stage.
#   DATA_ROOT=/data/VOCSegmentation GPUS=4 FOLDS="0 1" scripts/eval.sh [key=value ...]
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
CONFIG=${CONFIG:-configs/discovery/pascal.yaml}
use_requirements requirements.txt -- "$CONFIG" "$@"
each_fold eval.py "$CONFIG" method="${METHOD:-eums}" save_predictions=true "$@"
