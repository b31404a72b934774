#!/usr/bin/env bash
# scripts/clustering_cmd.sh on COCO-20i.
CONFIG=${CONFIG:-configs/ncdss/coco.yaml} exec "$(dirname "${BASH_SOURCE[0]}")/../clustering_cmd.sh" "$@"
