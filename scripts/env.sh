# Sourced by the scripts of this folder.
#   VENV=none   use the Python that is active already, instead of a virtual environment in .venv
#   GPUS=4      start every stage with torchrun on so many processes
#   FOLDS="0 2" the folds of scripts that run several
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

use_requirements() {
    [ "${VENV:-.venv}" = none ] && return
    local venv=${VENV:-.venv} stamp
    stamp="$venv/installed-$(cat "$@" | sha256sum | cut -c1-16)"
    if [ ! -e "$stamp" ]; then
        [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
        echo "installing $* into $venv (a few minutes the first time)"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check $(printf -- '-r %s ' "$@")
        touch "$stamp"
    fi
    # shellcheck disable=SC1091
    source "$venv/bin/activate"
}

# read_folders "$@": output folders into the array `folders`, --option value pairs into `options`
read_folders() {
    folders=() options=()
    while [ $# -gt 0 ]; do
        case $1 in
            --*) options+=("$1" "$2"); shift ;;
            *) folders+=("$1") ;;
        esac
        shift
    done
}

# launch SCRIPT.py ...: one process, or $GPUS of them by torchrun, with the exit status of the script
launch() {
    if [ "${GPUS:-1}" -gt 1 ]; then python -m utils.launch --standalone --nproc_per_node="$GPUS" "$@"; else python "$@"; fi
}

# each_fold SCRIPT.py CONFIG [key=value ...]: one stage for every fold; what is finished is skipped
each_fold() {
    local script=$1 config=$2 fold
    shift 2
    for fold in ${FOLDS:-0 1 2 3}; do
        launch "$script" "$config" split="fold$fold" "$@"
    done
}
