#!/usr/bin/env bash
# What a GPU makes of the chain: the drawn set, and with DATA_ROOT a VOC folder (sets/trainaug.txt, sets/val.txt), at 512
# pixels in bf16; then time, images per second and memory of every stage, and whether CPU and GPU compute the same.
#   DATA_ROOT=/data/voc scripts/ncdss/gpu_check.sh [key=value ...]
#   scripts/ncdss/gpu_check.sh model.backbone=resnet50 model.trained=null       # ImageNet weights must be at hand
# OUT=output/gpu_check, DEVICE=cuda and SIZE=512 can be set, e.g. DEVICE=cpu SIZE=64 to try the script itself.
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
OUT=${OUT:-output/gpu_check} DEVICE=${DEVICE:-cuda} SIZE=${SIZE:-512}
common=(device="$DEVICE" amp=bf16 data.image_size="$SIZE" data.max_side=null data.workers=4 data.cache=false "model.atrous_rates=[6,12,18]" "$@")

python prepare_data.py demo
data_root=${DATA_ROOT:-}
unset DATA_ROOT  # the drawn set has a place of its own
scripts/chain.sh configs/demo/ncdss.yaml output_dir="$OUT/demo" "${common[@]}"
runs=("$OUT/demo")
if [ -n "$data_root" ]; then
    scripts/chain.sh configs/ncdss/pascal_subset.yaml output_dir="$OUT/voc" data.root="$data_root" "${common[@]}"
    runs+=("$OUT/voc")
fi
python collect.py --cost "${runs[@]}"
python -m benchmarks.devices "$OUT/demo/fold0/eums/best.pth" datasets/demo/images --device "$DEVICE"
