#!/usr/bin/env bash
# scripts/finetune_basic.sh on COCO-20i.
CONFIG=${CONFIG:-configs/discovery/coco.yaml} exec "$(dirname "${BASH_SOURCE[0]}")/../finetune_basic.sh" "$@"
