#!/usr/bin/env bash
# Classes discovered in photographs of one's own (docs/own_data.md), in two halves.
#   scripts/discover.sh configs/mine.yaml [key=value ...]
# The first time it stops at the clusters, for you to look at them and to name them (name_clusters.py); the second time it
# goes on to a network that segments them, and labels every photograph that had no labels. Finished stages are skipped.
# FORMAT=voc, coco or labelme: of the labelled data set, which lies beside the stages; default: folder.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
if [ $# = 0 ]; then echo "usage: scripts/discover.sh CONFIG.yaml [key=value ...]" >&2; exit 2; fi
use_requirements requirements.txt -- "$@"

folder=$(python name_clusters.py "$@" --print-folder)
launch train_base.py "$@"
launch eval.py "$@" method=base
launch cluster_pseudolabel.py "$@"
python report.py "$@"
if [ ! -e "$folder/clusters.yaml" ]; then
    python name_clusters.py "$@"
    echo "then the same command again; it goes on with names or without: NAME=later scripts/discover.sh $*"
    [ "${NAME:-now}" = later ] || exit 0
fi
launch finetune_novel.py "$@" method=basic
launch eval.py "$@" method=basic save_predictions=true
launch entropy_rank.py "$@"
launch finetune_novel.py "$@" method=eums
launch eval.py "$@" method=eums save_predictions=true
python export.py "$folder/eums/best.pth" "$folder/labelled" --format "${FORMAT:-folder}"
python report.py "$@"
