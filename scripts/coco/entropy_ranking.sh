#!/usr/bin/env bash
# scripts/entropy_ranking.sh on COCO-20i.
CONFIG=${CONFIG:-configs/discovery/coco.yaml} exec "$(dirname "${BASH_SOURCE[0]}")/../entropy_ranking.sh" "$@"
