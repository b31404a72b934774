#!/usr/bin/env bash
# Train a linear probe on a pre-trained encoder, or score a trained linear probe. Finished stages are skipped.
#   DATA_ROOT=/data/VOCSegmentation GPUS=2 scripts/contrast/linear.sh checkpoint=FILE [key=value ...]
#   CRF=1 adds the row with CRF (needs pydensecrf2);   CONFIG=configs/demo/probe.yaml another configuration
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt -- "${CONFIG:-configs/contrast/probe_voc.yaml}" "$@"
config=${CONFIG:-configs/contrast/probe_voc.yaml}
step probe_features.py "$config" mode=linear "$@"
[ "${CRF:-0}" = 0 ] || step probe_features.py "$config" mode=linear evaluation.crf=true "$@"
run_steps
