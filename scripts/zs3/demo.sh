#!/usr/bin/env bash
# Zero-shot segmentation on the drawn demo set: step 1, DeViSE-like baseline, ZS3 published and strict, ZS5; table and report.html.
# For two CPU cores. What is finished is skipped, what was stopped goes on.
#   scripts/zs3/demo.sh [key=value ...]
# OUT=output/demo_zs3_1 scripts/zs3/demo.sh seed=1 keeps seeds apart.
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
source scripts/zs3/steps.sh
CONFIG=configs/demo/zs3.yaml
OUT=${OUT:-output/demo_zs3}
SPLIT=${SPLIT:-unseen4}
OPTIONS=(output_dir="$OUT" run.threads=1 "$@")

python prepare_data.py demo
mkdir -p "$OUT"  # side by side: two processes of one thread do more than one of two
all_classes "$CONFIG" "$SPLIT" devise "${OPTIONS[@]}" >"$OUT/devise.log" 2>&1 &
seen_classes "$CONFIG" "$SPLIT" "${OPTIONS[@]}"
wait $! || { tail -1 "$OUT/devise.log" >&2; exit 2; }
all_classes "$CONFIG" "$SPLIT" zs3_strict "${OPTIONS[@]}" >"$OUT/strict.log" 2>&1 &
all_classes "$CONFIG" "$SPLIT" "zs3 zs5" "${OPTIONS[@]}"
wait $! || { tail -1 "$OUT/strict.log" >&2; exit 2; }
python collect.py "$OUT"
python report.py "$CONFIG" split="$SPLIT" output_dir="$OUT" "$@"
