#!/usr/bin/env bash
# Fine-tune with EUMS, all folds.
#   DATA_ROOT=/data/VOCSegmentation GPUS=4 FOLDS="0 1" scripts/finetune_eums.sh [key=value ...]
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
CONFIG=${CONFIG:-configs/discovery/pascal.yaml}
use_requirements requirements.txt -- "$CONFIG" "$@"
each_fold finetune_novel.py "$CONFIG" method=eums "$@"
