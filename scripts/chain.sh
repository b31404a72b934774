#!/usr/bin/env bash
# The chain of one configuration, base training to evaluation, with the two reference runs when REFERENCES=1.
#   scripts/chain.sh configs/discovery/pascal_subset.yaml split=fold2 seed=1 data.root=/my/voc
# GPUS=N starts every training stage with torchrun on N processes. Finished stages are skipped.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
if [ $# = 0 ]; then echo "usage: scripts/chain.sh CONFIG.yaml [key=value ...]" >&2; exit 2; fi
use_requirements requirements.txt -- "$@"
CONFIG=$1
shift

launch train_base.py "$CONFIG" "$@"
launch eval.py "$CONFIG" method=base "$@"
launch cluster_pseudolabel.py "$CONFIG" "$@"
launch finetune_novel.py "$CONFIG" method=basic "$@"
launch eval.py "$CONFIG" method=basic save_predictions=true "$@"
launch entropy_rank.py "$CONFIG" "$@"
launch finetune_novel.py "$CONFIG" method=eums "$@"
launch eval.py "$CONFIG" method=eums save_predictions=true "$@"

reference() {  # what would the labels be worth if they were random, or all right?
    launch cluster_pseudolabel.py "$CONFIG" cluster.assign="$1" "${@:2}"
    launch finetune_novel.py "$CONFIG" method=basic cluster.assign="$1" "${@:2}"
    launch eval.py "$CONFIG" method=basic cluster.assign="$1" "${@:2}"
}
if [ "${REFERENCES:-0}" = 1 ]; then  # side by side: two processes of one thread do more than one of two
    reference random run.threads=1 "$@" >/dev/null &
    reference oracle run.threads=1 "$@"
    wait $!
fi
