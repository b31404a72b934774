#!/usr/bin/env bash
# Zero-shot segmentation on the drawn demo set: step 1, DeViSE-like baseline, ZS3 published and strict, ZS5; table and report.html.
# Under ten minutes on two CPU cores. What is finished is skipped, what was stopped goes on.
#   scripts/zs3/demo.sh [key=value ...]
# OUT=output/demo_zs3_1 scripts/zs3/demo.sh seed=1 keeps seeds apart.
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
source scripts/zs3/steps.sh
CONFIG=configs/demo/zs3.yaml
OUT=${OUT:-output/demo_zs3}

run() {  # run "METHODS" [key=value ...]
    zero_shot "$CONFIG" "${SPLIT:-unseen4}" "$1" output_dir="$OUT" run.threads=1 "${@:2}"
}

python prepare_data.py demo
mkdir -p "$OUT"
python train_zeroshot.py "$CONFIG" split="${SPLIT:-unseen4}" method=devise output_dir="$OUT" run.threads=1 "$@" \
    >"$OUT/devise.log" 2>&1 &  # side by side: two processes of one thread do more than one of two
devise=$!
run "" "$@"
wait $devise || { tail -1 "$OUT/devise.log" >&2; exit 2; }
run "zs3_strict" "$@" >"$OUT/strict.log" 2>&1 &
strict=$!
run "zs3 zs5 devise" "$@"
wait $strict || { tail -1 "$OUT/strict.log" >&2; exit 2; }
python collect.py "$OUT"
python report.py "$CONFIG" split="${SPLIT:-unseen4}" output_dir="$OUT" "$@"
