#!/usr/bin/env bash
# scripts/base_train.sh on COCO-20i.
CONFIG=${CONFIG:-configs/ncdss/coco.yaml} exec "$(dirname "${BASH_SOURCE[0]}")/../base_train.sh" "$@"
