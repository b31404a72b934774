#!/usr/bin/env bash
# ZS3Net on PASCAL VOC: all steps for 2, 4, 6, 8 and 10 unseen classes. Finished stages are skipped.
#   DATA_ROOT=VOCdevkit/VOC2012 GPUS=2 SPLITS="unseen2 unseen10" METHODS="devise zs3 zs3_strict zs5" scripts/zeroshot/voc.sh [key=value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt -- "${CONFIG:-configs/zeroshot/voc.yaml}" "$@"
source scripts/zeroshot/steps.sh
for split in ${SPLITS:-unseen2 unseen4 unseen6 unseen8 unseen10}; do
    seen_classes "${CONFIG:-configs/zeroshot/voc.yaml}" "$split" "$@"
    all_classes "${CONFIG:-configs/zeroshot/voc.yaml}" "$split" "${METHODS:-devise zs3 zs3_strict zs5}" "$@"
done
run_steps
