#!/usr/bin/env bash
# MaskContrast on the drawn demo set: pre-training, then k-means, linear probe and retrieval of the network before and after
# it and of ImageNet features; a table, and pictures of the prototypes. Finished stages are skipped.
#   scripts/contrast/demo.sh [seed=1 ...]         OUT=output/demo_contrast_1 keeps seeds apart
# The trained network predicts its own object masks; `given_masks` is evaluated on the saliency maps of the other networks.
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
OUT=${OUT:-output/demo_contrast}

probe() {  # probe NAME "MODES" [key=value ...]: evaluations of one network
    for mode in $2; do
        local rate=()  # learning rate of the linear probe, the only mode that trains
        [ "$mode" != linear ] || rate=(${LR:+training.lr="$LR"})
        step probe_features.py configs/demo/probe.yaml mode="$mode" output_dir="$OUT/probes" name="$1" "${rate[@]}" "${@:3}"
    done
}

python prepare_data.py demo
mkdir -p "$OUT"
step pretrain_contrast.py configs/demo/contrast.yaml output_dir="$OUT" "$@"
wait_background
trained=(model.kind=maskcontrast "checkpoint=$OUT/pretrain/last.pth")
background "$OUT/references.log"  # two processes of one thread are faster than one of two
LR=10 probe untrained "kmeans retrieval linear" model.kind=untrained run.threads=1 "$@"  # best of 0.1, 1, 10
probe imagenet "kmeans retrieval" model.kind=backbone run.threads=1 "$@"
foreground
LR=0.1 probe maskcontrast "kmeans retrieval linear" "${trained[@]}" run.threads=1 "$@"
probe given_masks "kmeans retrieval" "${trained[@]}" foreground=saliency run.threads=1 "$@"
wait_background
probe imagenet linear model.kind=backbone "$@"
run_steps
python collect.py "$OUT/probes"
python report.py configs/demo/probe.yaml output_dir="$OUT/probes" "$@"
echo "prototypes by class, before and after: $OUT/probes/{untrained,given_masks}/kmeans/prototypes.svg"
