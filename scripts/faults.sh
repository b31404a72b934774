#!/usr/bin/env bash
# Inject faults and compare every result with that of an undisturbed run; 12 minutes on two cores.
#   scripts/faults.sh [PART ...]    default: all; `processes` runs in parallel with the others
# processes   the discovery chain: 50 kills at random times, signals during saving, a full disk (a tmpfs), two processes
#             continued by one, two runs in one folder
# chaos       one training of each system, killed at file operations (ckpt-chaos), with one process and with two
# fuzz        every reader of files on 400 damaged copies
# properties  1,000 cases of every property test against a slow reference
# POINTS=4 is the number of file operations at which each training is killed. All of one training take an hour:
#   TRAININGS=base POINTS=1000 MODES=before,torn scripts/faults.sh chaos
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
use_requirements requirements.txt tests/requirements.txt
export OMP_NUM_THREADS=1

work=$(mktemp -d "${TMPDIR:-/tmp}/faults.XXXXXX")
begun=$SECONDS

processes() {
    local inside=()
    if unshare --map-root-user --mount true 2>/dev/null; then inside=(unshare --map-root-user --mount); fi  # to mount
    "${inside[@]}" python -m tests.faults "$work/processes"
}

fuzz() { python -m tests.fuzz --count 400 2>"$work/fuzz.log"; }

properties() {
    HYPOTHESIS_PROFILE=many python -m pytest -q tests/data/test_{label_map,transforms,crops,loading}.py \
        tests/utils/test_checkpoint.py tests/utils/config/test_reader.py tests/utils/measure
}

chaos() {
    local failed=0 ranks name
    python tests/make_tiny.py "$work" >/dev/null  # writes the configurations below and a few drawn images
    python train_base.py "$work/zero_shot.yaml" output_dir="$work/before" >/dev/null
    for ranks in ${RANKS:-1 2}; do
        for name in ${TRAININGS:-base incremental contrast zeroshot weakshot}; do
            training "$name"
            ckpt-chaos run --ranks "$ranks" --modes "${MODES:-torn}" --max-points "${POINTS:-4}" --timeout 300 \
                --work "$work/chaos/$name$ranks" --result-cmd "python tests/fingerprint.py {out}/$folder" \
                -- python "${command[@]}" output_dir={out} >"$work/$name$ranks.log" 2>&1 || failed=1
            echo "$name, $ranks process(es): $(tail -1 "$work/$name$ranks.log")"
        done
    done
    return $failed
}

training() {  # training NAME: sets `command`, and `folder` to that of its stage
    case $1 in
        base)
            folder=two/base
            command=(train_base.py "$work/tiny.yaml" model.backbone=efficientnet_lite0 base_training.epochs=2) ;;
        incremental)  # SSUL-M, all steps
            folder=abc-overlap/ssul_m/step2
            command=(train_incremental.py "$work/small.yaml" method=ssul_m) ;;
        contrast)
            folder=pretrain
            command=(pretrain_contrast.py "$work/contrast.yaml") ;;
        zeroshot)
            folder=dots/zs3_gc
            command=(train_zeroshot.py "$work/zero_shot.yaml" method=zs3_gc zs3.pace=batch
                step1_checkpoint="$work/before/dots/step1/last.pth") ;;
        weakshot)
            folder=two/simformer
            command=(train_weakshot.py "$work/weak_shot.yaml" method=simformer) ;;
    esac
}

run() { for part in "$@"; do "$part" || echo "$part" >>"$work/failed"; done; }

if [ $# -gt 0 ]; then
    run "$@"
else
    run processes &
    run fuzz properties chaos
    wait $!
fi
times >"$work/times"  # line 1: the shell, line 2: its children
echo "took $((SECONDS - begun)) s; CPU, user and system: $(tail -1 "$work/times")"
if [ -e "$work/failed" ]; then
    echo "failed: $(xargs <"$work/failed"); logs: $work"
    exit 1
fi
rm -r "$work"
