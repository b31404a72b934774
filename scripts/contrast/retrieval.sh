#!/usr/bin/env bash
# Retrieval with a pre-trained encoder, 21 and 7 classes.
#   DATA_ROOT=/data/VOCSegmentation scripts/contrast/retrieval.sh checkpoint=FILE [key=value ...]
#   CONFIG=configs/demo/probe.yaml another configuration
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt -- "${CONFIG:-configs/contrast/probe_voc.yaml}" "$@"
launch probe_features.py "${CONFIG:-configs/contrast/probe_voc.yaml}" mode=retrieval "$@"
