#!/usr/bin/env bash
# Class-incremental segmentation on the drawn demo set: every method on 15-1, a table and report.html.
# Nine minutes on two CPU cores. Finished steps are skipped, stopped ones resumed.
#   scripts/incremental/demo.sh [key=value ...]
# METHODS="ssul ssul_m" runs some of them; OUT=output/demo_incremental_1 scripts/incremental/demo.sh seed=1 keeps seeds apart.
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
OUT=${OUT:-output/demo_incremental}
METHODS=${METHODS:-finetune mib plop ssul ssul_m joint}

run() {  # run CONFIG "METHODS" [key=value ...]: the methods that are also in $METHODS
    for method in $2; do
        [[ " $METHODS " != *" $method "* ]] || step train_incremental.py "$1" output_dir="$OUT" method="$method" "${@:3}"
    done
}

python prepare_data.py demo
mkdir -p "$OUT"
background "$OUT/baselines.log"  # two processes of one thread are faster than one of two
run configs/demo/incremental_baselines.yaml "finetune mib plop" run.threads=1 "$@"
foreground
run configs/demo/incremental.yaml "ssul ssul_m joint" run.threads=1 "$@"
run_steps
python collect.py "$OUT"
python report.py configs/demo/incremental.yaml output_dir="$OUT" "$@"
