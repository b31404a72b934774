#!/usr/bin/env bash
# From nothing to a report: environment, demo set, the whole discovery chain, its table and report.html.
# About ten minutes on two CPU cores after installation. Finished stages are skipped, a stopped one goes on.
# Arguments are overrides for every stage: scripts/quickstart.sh split=fold1 output_dir=output/second
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
use_requirements requirements.txt
CONFIG=${CONFIG:-configs/demo/ncdss.yaml}

python prepare_data.py demo
python train_base.py "$CONFIG" "$@"
python eval.py "$CONFIG" method=base "$@"
python cluster_pseudolabel.py "$CONFIG" "$@"
python finetune_novel.py "$CONFIG" method=basic "$@"
python eval.py "$CONFIG" method=basic save_predictions=true "$@"
python entropy_rank.py "$CONFIG" "$@"
python finetune_novel.py "$CONFIG" method=eums "$@"
python eval.py "$CONFIG" method=eums save_predictions=true "$@"
for labels in random oracle; do  # references: what would the labels be worth if they were random, or all right?
    python cluster_pseudolabel.py "$CONFIG" cluster.assign=$labels "$@"
    python finetune_novel.py "$CONFIG" method=basic cluster.assign=$labels "$@"
    python eval.py "$CONFIG" method=basic cluster.assign=$labels "$@"
done
python report.py "$CONFIG" "$@"
