#!/usr/bin/env bash
# MaskContrast on the drawn demo set: pre-training, then k-means, linear probe and retrieval of the network before and
# after it, and of plain ImageNet features; one table, and pictures of the prototypes. What is finished is skipped.
#   scripts/maskcontrast/demo.sh [seed=1 ...]         OUT=output/demo_maskcontrast_1 keeps seeds apart
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
use_requirements requirements.txt
OUT=${OUT:-output/demo_maskcontrast}

probe() {  # probe NAME [key=value ...]: all evaluations of one network
    for mode in kmeans linear retrieval; do
        launch probe_features.py configs/demo/probe.yaml mode="$mode" output_dir="$OUT/probes" name="$1" "${@:2}"
    done
}

python prepare_data.py demo
launch pretrain_contrast.py configs/demo/maskcontrast.yaml output_dir="$OUT" "$@"
encoder=("model.kind=maskcontrast" "checkpoint=$OUT/pretrain/last.pth")
# side by side: two processes of one thread do more than one of two
{
    probe untrained model.kind=untrained training.lr=0.1 run.threads=1 "$@"
    probe imagenet model.kind=backbone run.threads=1 "$@"
} >"$OUT/references.log" 2>&1 &
probe maskcontrast "${encoder[@]}" training.lr=0.1 run.threads=1 "$@"
wait $! || { tail -1 "$OUT/references.log" >&2; exit 2; }
python collect.py --probes "$OUT"/probes/{untrained,imagenet,maskcontrast}
echo "prototypes by class, before and after: $OUT/probes/{untrained,maskcontrast}/kmeans/prototypes.svg"
