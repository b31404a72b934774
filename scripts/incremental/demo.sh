#!/usr/bin/env bash
# Class-incremental segmentation on the drawn demo set: every method on 15-1, then one table and report.html.
# Nine minutes on two CPU cores. Finished steps are skipped, a stopped one goes on.
#   scripts/incremental/demo.sh [key=value ...]
# METHODS="ssul ssul_m" runs some of them; OUT=output/demo_incremental_1 scripts/incremental/demo.sh seed=1 keeps seeds apart.
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
OUT=${OUT:-output/demo_incremental}
METHODS=${METHODS:-finetune mib plop ssul ssul_m joint}

run() {  # run CONFIG "METHODS" [key=value ...]: those of them that are asked for
    for method in $2; do
        [[ " $METHODS " != *" $method "* ]] || launch train_incremental.py "$1" output_dir="$OUT" method="$method" "${@:3}"
    done
}

python prepare_data.py demo
mkdir -p "$OUT"  # side by side: two processes of one thread do more than one of two
run configs/demo/incremental_baselines.yaml "finetune mib plop" run.threads=1 "$@" >"$OUT/baselines.log" 2>&1 &
run configs/demo/incremental.yaml "ssul ssul_m joint" run.threads=1 "$@"
wait $! || { tail -1 "$OUT/baselines.log" >&2; exit 2; }
python collect.py "$OUT"
python report.py configs/demo/incremental.yaml output_dir="$OUT" "$@"
