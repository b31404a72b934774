#!/usr/bin/env bash
# Zero-shot segmentation on the drawn demo set: step 1, DeViSE baseline, ZS3, ZS3 strict, ZS5; a table and report.html.
# For two CPU cores. Finished stages are skipped, stopped ones resumed.
#   scripts/zeroshot/demo.sh [key=value ...]
# OUT=output/demo_zeroshot_1 scripts/zeroshot/demo.sh seed=1 keeps seeds apart.
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
source scripts/zeroshot/steps.sh
CONFIG=configs/demo/zeroshot.yaml
OUT=${OUT:-output/demo_zeroshot}
SPLIT=${SPLIT:-unseen4}
OPTIONS=(output_dir="$OUT" run.threads=1 "$@")

python prepare_data.py demo
mkdir -p "$OUT"
background "$OUT/devise.log"  # two processes of one thread are faster than one of two
all_classes "$CONFIG" "$SPLIT" devise "${OPTIONS[@]}"
foreground
seen_classes "$CONFIG" "$SPLIT" "${OPTIONS[@]}"
wait_background
background "$OUT/strict.log"
all_classes "$CONFIG" "$SPLIT" zs3_strict "${OPTIONS[@]}"
foreground
all_classes "$CONFIG" "$SPLIT" "zs3 zs5" "${OPTIONS[@]}"
run_steps
python collect.py "$OUT"
python report.py "$CONFIG" split="$SPLIT" output_dir="$OUT" "$@"
