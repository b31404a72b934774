#!/usr/bin/env bash
# scripts/clustering_cmd.sh on COCO-20i.
CONFIG=${CONFIG:-configs/discovery/coco.yaml} exec "$(dirname "${BASH_SOURCE[0]}")/../clustering_cmd.sh" "$@"
