#!/usr/bin/env bash
# Kill train_base.py at every file operation, with one and with two processes, resume it, and compare what comes out
# with an undisturbed run (ckpt-chaos). About an hour on 2 cores. Arguments go to ckpt-chaos, e.g. --max-points 10.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
use_requirements requirements.txt tests/requirements.txt
export OMP_NUM_THREADS=1

work=$(mktemp -d "${TMPDIR:-/tmp}/crash_test.XXXXXX")
python tests/make_tiny.py "$work"  # a data set of a few drawn images, and tiny.yaml
small="model.backbone=efficientnet_lite0 base_training.epochs=2 base_training.save_every=3 base_training.log_every=1"
status=0
for ranks in 1 2; do
    # shellcheck disable=SC2086
    ckpt-chaos run --ranks "$ranks" --modes before,torn --max-points 1000 --timeout 300 --work "$work/ranks$ranks" \
        --result-cmd "python tests/fingerprint.py {out}/two/base" --step-regex 'resumed from step (\d+)' "$@" \
        -- python train_base.py "$work/tiny.yaml" output_dir={out} $small || status=1
done
[ "$status" = 0 ] && rm -r "$work" || echo "crash points and logs: $work"
exit $status
