#!/usr/bin/env bash
# SimFormer without each of its losses and with the pairing of the paper, compared with single images and the default.
#   scripts/weakshot/ablations.sh [CONFIG.yaml [key=value ...]]          default: configs/demo/weakshot.yaml
#   OUT=output/weakshot_ablations/seed2 SPLIT=fold3 scripts/weakshot/ablations.sh configs/demo/weakshot.yaml seed=2
# Runs go to $OUT/<variant>/$SPLIT. Finished stages are skipped; a quarter of an hour on one core with the demo set.
# Over seeds: python collect.py output/weakshot_ablations/seed* --rows variant
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt -- "${1:-configs/demo/weakshot.yaml}" "${@:2}"
source scripts/weakshot/steps.sh
CONFIG=${1:-configs/demo/weakshot.yaml}
shift || true
OUT=${OUT:-output/weakshot_ablations/seed0} SPLIT=${SPLIT:-fold3} overrides=("$@")

variant() {  # variant NAME METHOD [key=value ...]
    EVAL=(split="$SPLIT" "${overrides[@]}" output_dir="$OUT/$1")
    train_and_score "$CONFIG" "$2" "${EVAL[@]}" "${@:3}"
}

[ "$CONFIG" != configs/demo/weakshot.yaml ] || python prepare_data.py demo
variant default single
variant default simformer
variant no_complement single complement.weight=0
variant no_distillation simformer distillation.weight=0
variant paper_pairing simformer distillation.pairing=paper
run_steps
python collect.py "$OUT" --rows variant
