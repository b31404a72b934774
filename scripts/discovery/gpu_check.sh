#!/usr/bin/env bash
# Every system on a GPU: the demo set, and with DATA_ROOT a VOC folder (sets/trainaug.txt, sets/val.txt), at the image sizes
# of the papers in bf16. Prints time, images per second and memory of every stage, the difference between CPU and GPU results,
# and the speed of a training step of every system (benchmarks/gpu.py). Without a GPU it stops at once (exit status 2).
#   DATA_ROOT=/data/voc scripts/discovery/gpu_check.sh [key=value ...]
#   SYSTEMS=ncdss scripts/discovery/gpu_check.sh model.backbone=resnet50 model.trained=null    # needs ImageNet weights
# SYSTEMS="ncdss ssul maskcontrast zs3": systems with a function check_NAME below. OUT=output/gpu_check, DEVICE=cuda and SIZE
# (image side of all systems, pixels) can be set, e.g. DEVICE=cpu SIZE=64 to try the script itself.
SYSTEMS=${SYSTEMS:-ncdss ssul maskcontrast zs3}
OUT=${OUT:-output/gpu_check} DEVICE=${DEVICE:-cuda}
no_gpu() { echo "error: DEVICE=$DEVICE: no GPU found ($1); run this on a machine with one" >&2; exit 2; }
if [ "$DEVICE" != cpu ] && ! nvidia-smi -L 2>/dev/null | grep -q . && [ ! -e /dev/kfd ]; then
    no_gpu "nvidia-smi lists none"
fi
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
for system in $SYSTEMS; do
    grep -q "^check_$system() {" scripts/discovery/gpu_check.sh || { echo "error: SYSTEMS: no check of '$system' here" >&2; exit 2; }
done
use_requirements requirements.txt
[ "$DEVICE" = cpu ] || python -c "import sys, torch; sys.exit(not torch.cuda.is_available())" || no_gpu "torch sees none"

rest=(device="$DEVICE" amp=bf16 data.max_side=null data.workers=4 data.cache=false "model.atrous_rates=[6,12,18]" "$@")
data_root=${DATA_ROOT:-}
unset DATA_ROOT  # the demo set is in its default folder
voc=(data.root="$data_root")
on_voc() { [ -n "$data_root" ]; }

check_ncdss() {
    local options=(data.image_size="${SIZE:-512}" "${rest[@]}")
    scripts/chain.sh configs/demo/discovery.yaml output_dir="$OUT/ncdss" "${options[@]}"
    if on_voc; then scripts/chain.sh configs/discovery/pascal_subset.yaml output_dir="$OUT/ncdss_voc" "${voc[@]}" "${options[@]}"; fi
    devices="$OUT/ncdss/fold0/eums/best.pth"
}

check_ssul() {
    local options=(data.image_size="${SIZE:-513}" "${rest[@]}") method
    for method in ssul ssul_m; do
        step train_incremental.py configs/demo/incremental.yaml output_dir="$OUT/ssul" method="$method" "${options[@]}"
    done
    for method in mib plop; do
        step train_incremental.py configs/demo/incremental_baselines.yaml output_dir="$OUT/ssul" method="$method" "${options[@]}"
    done
    if on_voc; then
        step train_incremental.py configs/incremental/voc_subset.yaml output_dir="$OUT/ssul_voc" method=ssul "${voc[@]}" "${options[@]}"
    fi
}

check_maskcontrast() {
    local options=(data.image_size="${SIZE:-224}" "${rest[@]}") mode
    local probes=(data.image_size="${SIZE:-512}" "${rest[@]}" model.kind=maskcontrast)
    step pretrain_contrast.py configs/demo/contrast.yaml output_dir="$OUT/maskcontrast" "${options[@]}"
    for mode in linear kmeans retrieval; do
        step probe_features.py configs/demo/probe.yaml mode="$mode" output_dir="$OUT/maskcontrast/probes" \
            "${probes[@]}" checkpoint="$OUT/maskcontrast/pretrain/last.pth"
    done
    if on_voc; then
        step pretrain_contrast.py configs/contrast/voc_subset.yaml output_dir="$OUT/maskcontrast_voc" "${voc[@]}" "${options[@]}"
    fi
}

check_zs3() {
    local options=(data.image_size="${SIZE:-312}" evaluation.size="${SIZE:-312}" "${rest[@]}")
    source scripts/zeroshot/steps.sh
    seen_classes configs/demo/zeroshot.yaml unseen4 output_dir="$OUT/zs3" "${options[@]}"
    all_classes configs/demo/zeroshot.yaml unseen4 "zs3 zs5 devise" output_dir="$OUT/zs3" "${options[@]}"
    if on_voc; then
        seen_classes configs/zeroshot/voc_subset.yaml unseen2 output_dir="$OUT/zs3_voc" "${voc[@]}" "${options[@]}"
        all_classes configs/zeroshot/voc_subset.yaml unseen2 zs3 output_dir="$OUT/zs3_voc" "${voc[@]}" "${options[@]}"
    fi
}

python prepare_data.py demo
for system in $SYSTEMS; do "check_$system"; done
run_steps
python collect.py --cost "$OUT"
[ -z "${devices:-}" ] || python -m benchmarks.gpu --device "$DEVICE" --agree "$devices" datasets/demo/images
steps=(--device "$DEVICE" --save "$OUT/gpu.json")
[ "$DEVICE" != cpu ] || steps+=(--batch 2 --steps 1)
python -m benchmarks.gpu "${steps[@]}" ${SIZE:+--size "$SIZE"}
