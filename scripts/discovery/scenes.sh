#!/usr/bin/env bash
# The chain on pictures without background (docs/scenes.md), and its baseline: pseudo labels of semi-supervised k-means.
#   scripts/discovery/scenes.sh [CONFIG.yaml [key=value ...]]          default: configs/discovery/camvid.yaml
# Finished stages are skipped. Over seeds: python collect.py output/camvid/seed*
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
CONFIG=${1:-configs/discovery/camvid.yaml}
shift || true

scripts/chain.sh "$CONFIG" "$@"
launch cluster_pseudolabel.py "$CONFIG" cluster.assign=semi "$@"
launch finetune_novel.py "$CONFIG" method=basic cluster.assign=semi "$@"
launch eval.py "$CONFIG" method=basic cluster.assign=semi "$@"
python report.py "$CONFIG" "$@"
