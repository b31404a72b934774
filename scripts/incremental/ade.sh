#!/usr/bin/env bash
# Tasks of ADE20K, as in the paper's tables.
#   DATA_ROOT=/data/ADEChallengeData2016 GPUS=2 TASKS="100-10" METHODS="ssul" scripts/incremental/ade.sh [key=value ...]
TASKS=${TASKS:-100-50 100-10 100-5 50-50} METHODS=${METHODS:-ssul ssul_m mib plop} \
    BASELINES=${BASELINES:-${CONFIG:-configs/incremental/ade_baselines.yaml}} CONFIG=${CONFIG:-configs/incremental/ade.yaml} \
    exec "$(dirname "${BASH_SOURCE[0]}")/voc.sh" "$@"
