#!/usr/bin/env bash
# Linear probe of a pre-trained encoder, or the score of a trained linear probe; what is finished is skipped.
#   DATA_ROOT=/data/VOCSegmentation GPUS=2 scripts/contrast/linear.sh checkpoint=FILE [key=value ...]
#   CRF=1 adds the row with CRF (needs pydensecrf2);   CONFIG=configs/demo/probe.yaml another configuration
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt -- "${CONFIG:-configs/contrast/probe_voc.yaml}" "$@"
config=${CONFIG:-configs/contrast/probe_voc.yaml}
launch probe_features.py "$config" mode=linear "$@"
[ "${CRF:-0}" = 0 ] || launch probe_features.py "$config" mode=linear evaluation.crf=true "$@"
