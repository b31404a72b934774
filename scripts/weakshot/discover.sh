#!/usr/bin/env bash
# Discovery with tags: images of novel classes have tags instead of masks. Class discovery (NCDSS) finds and clusters their
# objects, the tags name the clusters, and a mask transformer learns all classes.
#   scripts/weakshot/discover.sh [key=value ...]                                           the demo set
#   DISCOVERY=configs/discovery/pascal_subset.yaml CONFIG=configs/weakshot/voc_subset.yaml SPLIT=fold1 DATA_ROOT=/data/voc \
#       OUT=output/discovered_tags_voc scripts/weakshot/discover.sh
# Arguments go to train_weakshot.py and eval.py. Both configurations must have the split $SPLIT.
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
source scripts/weakshot/steps.sh
DISCOVERY=${DISCOVERY:-configs/demo/discovery.yaml} CONFIG=${CONFIG:-configs/demo/weakshot.yaml}
SPLIT=${SPLIT:-fold3} OUT=${OUT:-output/demo_weakshot_discovered}

[ "$CONFIG" != configs/demo/weakshot.yaml ] || python prepare_data.py demo
step train_base.py "$DISCOVERY" split="$SPLIT" output_dir="$OUT"
step cluster_pseudolabel.py "$DISCOVERY" split="$SPLIT" output_dir="$OUT"
EVAL=(split="$SPLIT" output_dir="$OUT" data.tags=image data.masks=base "$@")
step train_weakshot.py "$CONFIG" method=clusters stage=pseudo "${EVAL[@]}"
train_and_score "$CONFIG" retrain retraining.labels_by=clusters "${EVAL[@]}"
run_steps
python collect.py "$OUT" --system simformer
