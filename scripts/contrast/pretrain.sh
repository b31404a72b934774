#!/usr/bin/env bash
# Pre-training of MaskContrast. Finished runs are skipped, stopped ones resumed.
#   DATA_ROOT=/data/VOCSegmentation GPUS=2 scripts/contrast/pretrain.sh [CONFIG.yaml ...] [key=value ...]
# The default is configs/contrast/voc_supervised.yaml.
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
configs=() overrides=()
for argument in "$@"; do
    case $argument in *=*) overrides+=("$argument") ;; *) configs+=("$argument") ;; esac
done
[ ${#configs[@]} -gt 0 ] || configs=(configs/contrast/voc_supervised.yaml)
use_requirements requirements.txt -- "${configs[0]}" "${overrides[@]}"
for config in "${configs[@]}"; do
    step pretrain_contrast.py "$config" "${overrides[@]}"
done
run_steps
