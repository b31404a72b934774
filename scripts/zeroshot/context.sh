#!/usr/bin/env bash
# ZS3Net on Pascal-Context: all steps for 2 to 10 unseen classes, with and without graph context. Finished stages are skipped.
#   DATA_ROOT=datasets/context GPUS=2 SPLITS="unseen2 unseen10" METHODS="devise zs3 zs3_gc zs5" scripts/zeroshot/context.sh [key=value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt -- "${CONFIG:-configs/zeroshot/context.yaml}" "$@"
source scripts/zeroshot/steps.sh
GC_EPOCHS=${GC_EPOCHS-100}
for split in ${SPLITS:-unseen2 unseen4 unseen6 unseen8 unseen10}; do
    seen_classes "${CONFIG:-configs/zeroshot/context.yaml}" "$split" "$@"
    all_classes "${CONFIG:-configs/zeroshot/context.yaml}" "$split" "${METHODS:-devise zs3 zs3_gc zs5}" "$@"
done
run_steps
