#!/usr/bin/env bash
# Tasks of PASCAL VOC, as in the tables of the paper. Finished steps are skipped, stopped ones resumed.
#   DATA_ROOT=/data/VOC2012 GPUS=2 TASKS="15-1 10-1" METHODS="ssul ssul_m" scripts/incremental/voc.sh [key=value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt -- "${CONFIG:-configs/incremental/voc.yaml}" "$@"
for task in ${TASKS:-15-1 10-1 5-3 19-1 15-5 5-1 2-1}; do
    for method in ${METHODS:-ssul ssul_m mib plop}; do
        config=${CONFIG:-configs/incremental/voc.yaml} published=()
        case $method in mib | plop | finetune) config=${BASELINES:-${CONFIG:-configs/incremental/voc_baselines.yaml}} ;; esac
        case $config:$task:$method in
            configs/incremental/voc_baselines.yaml:10-1:plop) published=(training.first_epochs=30 training.epochs=10) ;;
        esac
        step train_incremental.py "$config" task="$task" method="$method" "${published[@]}" "$@"
    done
done
run_steps
