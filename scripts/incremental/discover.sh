#!/usr/bin/env bash
# Discovery, then incremental learning: the novel classes of a fold are clustered (NCDSS) and learned step by step (SSUL).
#   scripts/incremental/discover.sh [key=value ...]                                                the demo set
#   DISCOVERY=configs/discovery/pascal.yaml STEPS=configs/incremental/voc.yaml DATA_ROOT=/data/VOC2012 scripts/incremental/discover.sh
# The classes of step 0 of $TASK must be the base classes of $FOLD. Arguments go to train_incremental.py.
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
DISCOVERY=${DISCOVERY:-configs/demo/discovery.yaml} STEPS=${STEPS:-configs/demo/incremental.yaml}
FOLD=${FOLD:-fold3} TASK=${TASK:-15-1} OUT=${OUT:-output/discovered}

[ "$DISCOVERY" != configs/demo/discovery.yaml ] || python prepare_data.py demo
step train_base.py "$DISCOVERY" split="$FOLD" output_dir="$OUT"
step cluster_pseudolabel.py "$DISCOVERY" split="$FOLD" output_dir="$OUT"
step train_incremental.py "$STEPS" task="$TASK" setting=discovered pseudo_dir="$OUT/$FOLD/pseudo" output_dir="$OUT" "$@"
run_steps
