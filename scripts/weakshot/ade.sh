#!/usr/bin/env bash
# SimFormer on ADE20K, all stages of its splits. Finished stages are skipped, stopped ones resumed.
#   DATA_ROOT=ADEChallengeData2016 GPUS=4 SPLITS="split1 split4" METHODS="single simformer retrain supervised" scripts/weakshot/ade.sh [key=value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt -- "${CONFIG:-configs/weakshot/ade.yaml}" "$@"
source scripts/weakshot/steps.sh
for split in ${SPLITS:-split1 split2 split3 split4}; do
    views=""
    [ "$split" != split4 ] || views="pseudo.tta_sizes=[320,480,640,800,960,1120]"
    all_stages "${CONFIG:-configs/weakshot/ade.yaml}" "$split" "${METHODS:-simformer retrain}" "" "$views" "$@"
done
run_steps
