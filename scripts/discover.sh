#!/usr/bin/env bash
# Discover classes in your own photographs (docs/own_data.md), in two parts.
#   scripts/discover.sh configs/mine.yaml [key=value ...]
# The first call ends with the clusters: look at them and name them (name_clusters.py). The second call trains a network
# that segments them, and labels every photograph that had no labels. Finished stages are skipped.
# FORMAT=voc, coco or labelme: format of the labelled data set, which is written to the folder of the stages; default: folder.
# METHOD=eums adds ranking and EUMS, and exports its labels. On photographs it showed no advantage (docs/results.md).
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
if [ $# = 0 ]; then echo "usage: scripts/discover.sh CONFIG.yaml [key=value ...]" >&2; exit 2; fi
use_requirements requirements.txt -- "$@"

folder=$(python name_clusters.py "$@" --print-folder)
step train_base.py "$@"
step eval.py "$@" method=base
step cluster_pseudolabel.py "$@"
run_steps
python report.py "$@"
if [ ! -e "$folder/clusters.yaml" ]; then
    python name_clusters.py "$@"
    echo "then run the same command again; without names: NAME=later scripts/discover.sh $*"
    [ "${NAME:-now}" = later ] || exit 0
fi
step finetune_novel.py "$@" method=basic
step eval.py "$@" method=basic save_predictions=true
if [ "${METHOD:=basic}" = eums ]; then
    step entropy_rank.py "$@"
    step finetune_novel.py "$@" method=eums
    step eval.py "$@" method=eums save_predictions=true
fi
run_steps
python export.py "$folder/$METHOD/best.pth" "$folder/labelled" --format "${FORMAT:-folder}"
python report.py "$@"
