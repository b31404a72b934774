#!/usr/bin/env bash
# Class-incremental segmentation on the drawn demo set: every method on 15-1, then one table.
#   scripts/ssul/demo.sh [key=value ...]
# METHODS="ssul ssul_m" runs some of them; OUT=output/demo_ssul_1 scripts/ssul/demo.sh seed=1 keeps seeds apart.
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
OUT=${OUT:-output/demo_ssul}

python prepare_data.py demo
for method in ${METHODS:-finetune mib plop ssul ssul_m joint}; do
    launch train_incremental.py configs/demo/ssul.yaml output_dir="$OUT" method="$method" "$@"
done
python collect.py --tasks "$OUT"/*
