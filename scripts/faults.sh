#!/usr/bin/env bash
# Faults on purpose, each against an undisturbed run: kills at file operations (ckpt-chaos) of three trainings with one
# process and two, 50 kills of the chain at random moments, signals while it saves, a full disk, two processes then one,
# two runs in one folder; 400 damaged copies for every reader of files; and 1,000 cases of each property that tests hold
# against a slow reference. POINTS=4 file operations of each training.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
use_requirements requirements.txt tests/requirements.txt
export OMP_NUM_THREADS=1

work=$(mktemp -d "${TMPDIR:-/tmp}/faults.XXXXXX")
status=0
python -m tests.fuzz --count 400 2> "$work/fuzz.log" || status=1
HYPOTHESIS_PROFILE=many python -m pytest -q -n 2 tests/data/test_{label_map,transforms,crops,loading}.py \
    tests/utils/test_checkpoint.py tests/utils/config/test_reader.py tests/utils/measure || status=1
python -m tests.faults "$work" || status=1

python tests/make_tiny.py "$work"  # three configurations on a data set of a few drawn images
chaos() {  # chaos RANKS NAME FOLDER SCRIPT.py CONFIG [key=value ...]
    local ranks=$1 name=$2 folder=$3
    shift 3
    ckpt-chaos run --ranks "$ranks" --modes torn --max-points "${POINTS:-4}" --timeout 300 --work "$work/$name$ranks" \
        --result-cmd "python tests/fingerprint.py {out}/$folder" -- python "$@" output_dir={out} || status=1
}
for ranks in 1 2; do
    chaos "$ranks" base two/base train_base.py "$work/tiny.yaml" model.backbone=efficientnet_lite0 base_training.epochs=2
    chaos "$ranks" step abc-overlap/ssul_m/step1 train_incremental.py "$work/small.yaml" method=ssul_m
    chaos "$ranks" contrast pretrain pretrain_contrast.py "$work/contrast.yaml"
done
[ "$status" = 0 ] && rm -r "$work" || echo "what failed, and logs: $work"
exit $status
