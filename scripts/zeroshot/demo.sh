#!/usr/bin/env bash
# Zero-shot segmentation on the drawn demo set: step 1, DeViSE-like baseline, ZS3 published and strict, ZS5; table and report.html.
# For two CPU cores. What is finished is skipped, what was stopped goes on.
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
mkdir -p "$OUT"  # side by side: two processes of one thread do more than one of two
all_classes "$CONFIG" "$SPLIT" devise "${OPTIONS[@]}" >"$OUT/devise.log" 2>&1 &
seen_classes "$CONFIG" "$SPLIT" "${OPTIONS[@]}"
wait $! || { tail -1 "$OUT/devise.log" >&2; exit 2; }
all_classes "$CONFIG" "$SPLIT" zs3_strict "${OPTIONS[@]}" >"$OUT/strict.log" 2>&1 &
all_classes "$CONFIG" "$SPLIT" "zs3 zs5" "${OPTIONS[@]}"
wait $! || { tail -1 "$OUT/strict.log" >&2; exit 2; }
python collect.py "$OUT"
python report.py "$CONFIG" split="$SPLIT" output_dir="$OUT" "$@"
