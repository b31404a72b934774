#!/usr/bin/env bash
# Weak-shot segmentation of the drawn demo set: single images, pairs, re-training on pseudo-labels, upper bound; a table
# and report.html. For two CPU cores. Finished stages are skipped, stopped ones resumed.
#   scripts/weakshot/demo.sh [key=value ...]
# OUT=output/demo_weakshot_1 scripts/weakshot/demo.sh seed=1 keeps seeds apart; ablations.sh leaves out each loss.
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
source scripts/weakshot/steps.sh
CONFIG=configs/demo/weakshot.yaml
OUT=${OUT:-output/demo_weakshot}
SPLIT=${SPLIT:-fold3}
OPTIONS=(output_dir="$OUT" run.threads=1 "$@")

python prepare_data.py demo
mkdir -p "$OUT"
background "$OUT/others.log"  # two processes of one thread are faster than one of two
all_stages "$CONFIG" "$SPLIT" "single supervised" "" "" "${OPTIONS[@]}"
foreground
all_stages "$CONFIG" "$SPLIT" "simformer retrain" "" "" "${OPTIONS[@]}"
run_steps
python collect.py "$OUT"
python report.py "$CONFIG" split="$SPLIT" "${OPTIONS[@]}"
