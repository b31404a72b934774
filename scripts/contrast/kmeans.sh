#!/usr/bin/env bash
# K-means of a pre-trained encoder's prototypes, mean and deviation of five seeds.
#   DATA_ROOT=/data/VOCSegmentation scripts/contrast/kmeans.sh checkpoint=FILE [key=value ...]
#   CONFIG=configs/demo/probe.yaml another configuration
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt -- "${CONFIG:-configs/contrast/probe_voc.yaml}" "$@"
launch probe_features.py "${CONFIG:-configs/contrast/probe_voc.yaml}" mode=kmeans "$@"
