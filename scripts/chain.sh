#!/usr/bin/env bash
# The chain of one configuration, from base training to evaluation; with REFERENCES=1 also the two reference runs: random
# labels (lower bound) and the true classes (upper bound).
#   scripts/chain.sh configs/discovery/pascal_subset.yaml split=fold2 seed=1 data.root=/my/voc
# GPUS=N starts every training stage with torchrun on N processes. Finished stages are skipped.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
if [ $# = 0 ]; then echo "usage: scripts/chain.sh CONFIG.yaml [key=value ...]" >&2; exit 2; fi
use_requirements requirements.txt -- "$@"
CONFIG=$1
shift

step train_base.py "$CONFIG" "$@"
step eval.py "$CONFIG" method=base "$@"
step cluster_pseudolabel.py "$CONFIG" "$@"
step finetune_novel.py "$CONFIG" method=basic "$@"
step eval.py "$CONFIG" method=basic save_predictions=true "$@"
step entropy_rank.py "$CONFIG" "$@"
step finetune_novel.py "$CONFIG" method=eums "$@"
step eval.py "$CONFIG" method=eums save_predictions=true "$@"

reference() {  # reference random|oracle [key=value ...]
    step cluster_pseudolabel.py "$CONFIG" cluster.assign="$1" "${@:2}"
    step finetune_novel.py "$CONFIG" method=basic cluster.assign="$1" "${@:2}"
    step eval.py "$CONFIG" method=basic cluster.assign="$1" "${@:2}"
}
if [ "${REFERENCES:-0}" = 1 ]; then  # at the same time: two processes of one thread are faster than one of two
    wait_background
    background
    reference random run.threads=1 "$@"
    foreground
    reference oracle run.threads=1 "$@"
fi
run_steps
