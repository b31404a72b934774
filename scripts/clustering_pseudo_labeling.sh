#!/usr/bin/env bash
# Pseudo-labels of one fold, with the arguments of the official script:
#   scripts/clustering_pseudo_labeling.sh OUTPUT_DIR BASE_MODEL FOLD CLUSTERS [key=value ...]
#   scripts/clustering_pseudo_labeling.sh output/pseudos_fold0 output/base_train_f0/best_model.pth.tar fold0 10
# BASE_MODEL is a checkpoint, ours or official, or its folder. The output is OUTPUT_DIR/FOLD/pseudo.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
[ $# -ge 4 ] || { echo "usage: $0 OUTPUT_DIR BASE_MODEL FOLD CLUSTERS [key=value ...]" >&2; exit 2; }
use_requirements requirements.txt -- "${CONFIG:-configs/discovery/pascal.yaml}" "${@:5}"
output=$1 model=$2 fold=$3 clusters=$4
shift 4
for file in best.pth best_model.pth.tar; do
    if [ -f "$model/$file" ]; then model=$model/$file; fi
done
launch cluster_pseudolabel.py "${CONFIG:-configs/discovery/pascal.yaml}" output_dir="$output" split="$fold" cluster.k="$clusters" \
    base_checkpoint="$model" "$@"
