#!/usr/bin/env bash
# 15-1 in the twenty-two class orders of the PLOP study: mean and deviation of each method over them.
#   DATA_ROOT=/data/VOC2012 GPUS=2 METHODS="ssul ssul_m" ORDERS="b c d" scripts/incremental/class_orders.sh [key=value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt -- "${CONFIG:-configs/incremental/voc.yaml}" "$@"
OUT=${OUT:-output/class_orders} TASKS=""
for order in ${ORDERS:-b c d e f g h i j k l m n o p q r s t u v w}; do TASKS+=" 15-1_$order"; done
TASKS="$TASKS" scripts/incremental/voc.sh output_dir="$OUT" "$@"
python collect.py "$OUT" --over splits
