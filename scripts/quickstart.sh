#!/usr/bin/env bash
# From a fresh clone to a report: environment, demo set, the whole discovery chain, its table and report.html.
# Four minutes on two CPU cores after installation. Finished stages are skipped, stopped ones resumed. REFERENCES=1 adds
# the bounds of any pseudo-labels: random clusters and true classes.
# Arguments override keys of every stage: scripts/quickstart.sh split=fold1 seed=1 output_dir=output/second
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
use_requirements requirements.txt
CONFIG=configs/demo/discovery.yaml

python prepare_data.py demo
scripts/chain.sh "$CONFIG" "$@"
python report.py "$CONFIG" "$@"
