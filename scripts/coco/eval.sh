#!/usr/bin/env bash
# scripts/eval.sh on COCO-20i.
CONFIG=${CONFIG:-configs/discovery/coco.yaml} exec "$(dirname "${BASH_SOURCE[0]}")/../eval.sh" "$@"
