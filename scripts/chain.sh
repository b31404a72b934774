#!/usr/bin/env bash
# The chain of one configuration, base training to evaluation, with the two reference runs when REFERENCES=1.
#   scripts/chain.sh configs/ncdss/pascal_subset.yaml split=fold2 seed=1 data.root=/my/voc
# GPUS=N starts every training stage with torchrun on N processes. Finished stages are skipped.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
use_requirements requirements.txt
CONFIG=${1:?usage: scripts/chain.sh CONFIG.yaml [key=value ...]}
shift

launch train_base.py "$CONFIG" "$@"
launch eval.py "$CONFIG" method=base "$@"
launch cluster_pseudolabel.py "$CONFIG" "$@"
launch finetune_novel.py "$CONFIG" method=basic "$@"
launch eval.py "$CONFIG" method=basic save_predictions=true "$@"
launch entropy_rank.py "$CONFIG" "$@"
launch finetune_novel.py "$CONFIG" method=eums "$@"
launch eval.py "$CONFIG" method=eums save_predictions=true "$@"
if [ "${REFERENCES:-0}" = 1 ]; then  # what would the labels be worth if they were random, or all right?
    for labels in random oracle; do
        launch cluster_pseudolabel.py "$CONFIG" cluster.assign=$labels "$@"
        launch finetune_novel.py "$CONFIG" method=basic cluster.assign=$labels "$@"
        launch eval.py "$CONFIG" method=basic cluster.assign=$labels "$@"
    done
fi
