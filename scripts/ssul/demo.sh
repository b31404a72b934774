#!/usr/bin/env bash
# Class-incremental segmentation on the drawn demo set: every method on 15-1, then one table.
#   scripts/ssul/demo.sh [key=value ...]        METHODS="ssul ssul_m" runs some of them
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
CONFIG=${CONFIG:-configs/demo/ssul.yaml}

python prepare_data.py demo
folders=()
for method in ${METHODS:-finetune mib plop ssul ssul_m joint}; do
    launch train_incremental.py "$CONFIG" method="$method" "$@"
done
