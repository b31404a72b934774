#!/usr/bin/env bash
# EUMS on a few hundred photographs: basic, EUMS as published, EUMS without reassignment, and EUMS that ranks within each
# cluster; folds 1-3 and fold4 (the animals), three seeds; random and oracle labels for the first seed.
#   DATA_ROOT=/data/voc_subset scripts/discovery/subset_study.sh [key=value ...]
#   SEEDS="1 2 3" FOLDS="1 2 3 4" LANES=2 OUT=output/subset_study
# 1,500 steps per network; published epochs, momentum and ramp-up. About 22 hours on two CPU cores (estimated from the
# time per step of the 300-step runs). Finished stages are skipped, stopped ones resumed.
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt -- configs/discovery/pascal_subset.yaml "$@"
CONFIG=configs/discovery/pascal_subset.yaml OUT=${OUT:-output/subset_study} LANES=${LANES:-2}
schedule=()
for section in basic eums; do
    schedule+=("$section.epochs=30" "$section.iters_per_epoch=50" "$section.milestones=[15]" "$section.eval_every=5")
done
schedule+=(eums.teacher_momentum=0.99 eums.rampup_length=5 'eums.reassign_epochs=[5]')
[ "$LANES" = 1 ] || schedule+=(run.threads=1)
overrides=("$@")

stage() {  # stage FOLDER FOLD SEED SCRIPT [key=value ...]
    step "$4" "$CONFIG" "${schedule[@]}" "${overrides[@]}" split="fold$2" seed="$3" output_dir="$OUT/seed$3/$1" "${@:5}"
}

variant() {  # variant NAME FOLD SEED [key=value ...]: EUMS on the labels and the basic model of the default
    local name=$1 fold=$2 seed=$3 first="$OUT/seed$3/default/fold$2" shared
    shared=(base_checkpoint="$first/base/best.pth" pseudo_dir="$first/pseudo" basic_checkpoint="$first/basic/best.pth")
    stage "$name" "$fold" "$seed" entropy_rank.py "${shared[@]}" "${@:4}"
    stage "$name" "$fold" "$seed" finetune_novel.py method=eums "${shared[@]}" "${@:4}"
    stage "$name" "$fold" "$seed" eval.py method=eums "${@:4}"
}

study() {  # study FOLD SEED
    local fold=$1 seed=$2 labels
    stage default "$fold" "$seed" train_base.py
    stage default "$fold" "$seed" eval.py method=base
    stage default "$fold" "$seed" cluster_pseudolabel.py
    stage default "$fold" "$seed" finetune_novel.py method=basic
    stage default "$fold" "$seed" eval.py method=basic
    variant default "$fold" "$seed"
    variant no_reassignment "$fold" "$seed" 'eums.reassign_epochs=[]'
    variant per_cluster "$fold" "$seed" ranking.balance=cluster eums.reassign_balance=cluster
    [ "$seed" = "${SEEDS%% *}" ] || return 0
    for labels in random oracle; do
        stage default "$fold" "$seed" cluster_pseudolabel.py cluster.assign=$labels
        stage default "$fold" "$seed" finetune_novel.py method=basic cluster.assign=$labels
        stage default "$fold" "$seed" eval.py method=basic cluster.assign=$labels
    done
}

lane() {  # every LANES-th pair of seed and fold
    local place=0 seed fold
    for seed in $SEEDS; do
        for fold in $FOLDS; do
            [ $((place++ % LANES)) -ne "$1" ] || study "$fold" "$seed"
        done
    done
    run_steps
}

SEEDS=${SEEDS:-1 2 3} FOLDS=${FOLDS:-1 2 3 4}
running=()
for number in $(seq 0 $((LANES - 1))); do
    lane "$number" &
    running+=($!)
done
for process in "${running[@]}"; do wait "$process"; done
python collect.py "$OUT"/seed* --system ncdss --columns split
python collect.py "$OUT"/seed* --system ncdss --rows variant
