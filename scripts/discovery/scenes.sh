#!/usr/bin/env bash
# The chain on images without a background class (docs/scenes.md), and its baseline: pseudo-labels by semi-supervised k-means.
#   scripts/discovery/scenes.sh [CONFIG.yaml [key=value ...]]          default: configs/discovery/camvid.yaml
# Finished stages are skipped. Over seeds: python collect.py output/camvid/seed*
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
CONFIG=${1:-configs/discovery/camvid.yaml}
shift || true

scripts/chain.sh "$CONFIG" "$@"
step cluster_pseudolabel.py "$CONFIG" cluster.assign=semi "$@"
step finetune_novel.py "$CONFIG" method=basic cluster.assign=semi "$@"
step eval.py "$CONFIG" method=basic cluster.assign=semi "$@"
run_steps
python report.py "$CONFIG" "$@"
