#!/usr/bin/env bash
# scripts/base_train.sh on COCO-20i.
CONFIG=${CONFIG:-configs/discovery/coco.yaml} exec "$(dirname "${BASH_SOURCE[0]}")/../base_train.sh" "$@"
