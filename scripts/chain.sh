#!/usr/bin/env bash
# The chain of one configuration, base training to evaluation, with the two reference runs when REFERENCES=1.
#   scripts/chain.sh configs/ncdss/pascal_subset.yaml split=fold2 seed=1 data.root=/my/voc
# GPUS=N starts every training stage with torchrun on N processes. Finished stages are skipped.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
use_requirements requirements.txt
CONFIG=${1:?usage: scripts/chain.sh CONFIG.yaml [key=value ...]}
shift
run() { if [ "${GPUS:-1}" -gt 1 ]; then torchrun --standalone --nproc_per_node="$GPUS" "$@"; else python "$@"; fi; }

run train_base.py "$CONFIG" "$@"
run eval.py "$CONFIG" method=base "$@"
run cluster_pseudolabel.py "$CONFIG" "$@"
run finetune_novel.py "$CONFIG" method=basic "$@"
run eval.py "$CONFIG" method=basic save_predictions=true "$@"
run entropy_rank.py "$CONFIG" "$@"
run finetune_novel.py "$CONFIG" method=eums "$@"
run eval.py "$CONFIG" method=eums save_predictions=true "$@"
if [ "${REFERENCES:-0}" = 1 ]; then  # what would the labels be worth if they were random, or all right?
    for labels in random oracle; do
        run cluster_pseudolabel.py "$CONFIG" cluster.assign=$labels "$@"
        run finetune_novel.py "$CONFIG" method=basic cluster.assign=$labels "$@"
        run eval.py "$CONFIG" method=basic cluster.assign=$labels "$@"
    done
fi
