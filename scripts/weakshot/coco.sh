#!/usr/bin/env bash
# SimFormer on COCO-Stuff-10K, all stages of its splits. Finished stages are skipped, stopped ones resumed.
#   DATA_ROOT=coco_stuff_10k GPUS=4 SPLITS="split1 split2" METHODS="single simformer retrain supervised" scripts/weakshot/coco.sh [key=value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt -- "${CONFIG:-configs/weakshot/coco.yaml}" "$@"
source scripts/weakshot/steps.sh
for split in ${SPLITS:-split1 split2 split3 split4}; do
    case $split in  # as in the released configurations
        split1) pairs="distillation.weight=0" ;;
        split3) pairs="distillation.function=ce" ;;
        *) pairs="" ;;
    esac
    all_stages "${CONFIG:-configs/weakshot/coco.yaml}" "$split" "${METHODS:-simformer retrain}" "$pairs" "" "$@"
done
run_steps
