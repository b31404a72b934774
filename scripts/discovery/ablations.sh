#!/usr/bin/env bash
# The ablations of the paper, each an override of the default chain, and their table.
#   scripts/discovery/ablations.sh [CONFIG.yaml [key=value ...]]          default: configs/demo/discovery_hard.yaml
#   OUT=output/ablations/seed2 FOLD=fold0 scripts/discovery/ablations.sh configs/demo/discovery_hard.yaml seed=2
# Runs go to $OUT/<variant>/$FOLD; stages that a variant does not change are those of $OUT/default. Finished stages are skipped.
# ENCODER=output/demo_contrast/pretrain/last.pth adds a variant that clusters MaskContrast's embeddings.
# Over seeds: python collect.py output/ablations/seed* --rows variant
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt -- "${1:-configs/demo/discovery_hard.yaml}" "${@:2}"
CONFIG=${1:-configs/demo/discovery_hard.yaml}
shift || true
OUT=${OUT:-output/ablations} FOLD=${FOLD:-fold0}
first="$OUT/default/$FOLD" overrides=("$@")
shared=()  # inputs of the variants below that come from the default chain

stage() {  # stage VARIANT SCRIPT [key=value ...]
    step "$2" "$CONFIG" split="$FOLD" "${overrides[@]}" output_dir="$OUT/$1" "${shared[@]}" "${@:3}"
}
from_eums() { stage "$1" finetune_novel.py method=eums "${@:2}"; stage "$1" eval.py method=eums "${@:2}"; }
from_ranking() { stage "$1" entropy_rank.py "${@:2}"; from_eums "$@"; }
from_basic() { stage "$1" finetune_novel.py method=basic "${@:2}"; stage "$1" eval.py method=basic "${@:2}"; from_ranking "$@"; }
from_clustering() { stage "$1" cluster_pseudolabel.py "${@:2}"; from_basic "$@"; }

stage default train_base.py
from_clustering default

shared=(base_checkpoint="$first/base/best.pth")
from_clustering clusters_5 cluster.k=5
from_clustering clusters_20 cluster.k=20
from_clustering base_features cluster.features=base
from_clustering no_whitening cluster.whiten=false
[ -z "${ENCODER:-}" ] || from_clustering maskcontrast cluster.features=maskcontrast cluster.features_checkpoint="$ENCODER"

shared+=(pseudo_dir="$first/pseudo" basic_checkpoint="$first/basic/best.pth")
from_ranking lambda_0.33 ranking.proportion=0.33
from_ranking lambda_0.83 ranking.proportion=0.83
from_ranking ranking_by_truth ranking.by=truth

shared+=(split_dir="$first/ranking")
from_eums no_reassignment eums.reassign_epochs=[]
from_eums no_rampup eums.rampup_length=0
from_eums clean_only eums.rampup_weight=0
from_eums teacher_eval eums.teacher_mode=eval
from_eums from_base_model eums.init_from_base=true
from_eums from_basic_model eums.init_from_basic=true

run_steps
python collect.py "$OUT" --rows variant
