#!/usr/bin/env bash
# K-means of a pre-trained encoder's prototypes, mean and deviation of five seeds.
#   DATA_ROOT=/data/VOCSegmentation scripts/maskcontrast/kmeans.sh checkpoint=FILE [key=value ...]
#   CONFIG=configs/demo/probe.yaml another configuration
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt -- "${CONFIG:-configs/maskcontrast/probe_voc.yaml}" "$@"
launch probe_features.py "${CONFIG:-configs/maskcontrast/probe_voc.yaml}" mode=kmeans "$@"
