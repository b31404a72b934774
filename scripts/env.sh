# Sourced by the scripts of this folder.
#   VENV=DIR    virtual environment to create or use; default: the active one if it has the packages, else .venv
#   VENV=none   use the active Python without checking its packages
#   PYTHON=...  Python that creates the environment; default: python3
#   GPUS=4      start every stage with torchrun on 4 processes
#   FOLDS="0 2" the folds of scripts that run several
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Exits with 0 if every package listed in the given files is installed; imports none of them.
HAS_REQUIREMENTS='
import re, sys
from importlib.metadata import PackageNotFoundError, version
try:
    for path in sys.argv[1:]:
        for line in open(path):
            name = re.match(r"[A-Za-z0-9_.-]+", line)
            name and version(name[0])
except PackageNotFoundError:
    sys.exit(1)
'

# use_requirements FILE ... [-- CONFIG.yaml key=value ...]: activate an environment with the packages listed in the files.
# With a configuration, check its data root before an installation that takes minutes.
use_requirements() {
    local files=()
    while [ $# -gt 0 ] && [ "$1" != -- ]; do files+=("$1"); shift; done
    local data=("${@:2}")
    set -- "${files[@]}"
    [ "${VENV:-.venv}" = none ] && return
    if [ -z "${VENV:-}" ] && [ -n "${VIRTUAL_ENV:-}" ] && python - "$@" <<<"$HAS_REQUIREMENTS"; then
        echo "using the active virtual environment $VIRTUAL_ENV (VENV=DIR chooses another)" >&2
        return
    fi
    local venv=${VENV:-.venv} stamp
    stamp="$venv/installed-$(cat "$@" | sha256sum | cut -c1-16)"
    if [ ! -e "$stamp" ]; then
        [ ${#data[@]} = 0 ] || "${PYTHON:-python3}" scripts/data_root.py "${data[@]}" >/dev/null
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

# launch SCRIPT.py ...: run it in one process, or with torchrun in $GPUS; the exit status is that of the script
launch() {
    if [ "${GPUS:-1}" -gt 1 ]; then python -m utils.launch --standalone --nproc_per_node="$GPUS" "$@"; else python "$@"; fi
}

# A chain of commands: `step` adds one, `run_steps` runs them and skips those that are finished (utils/chain.py).
STEPS=()
step() { STEPS+=(-- "$@"); }                    # step SCRIPT.py ...: in $GPUS processes
step_alone() { STEPS+=(-- --alone "$@"); }      # in one process
background() { STEPS+=(-- --background "$@"); } # background [LOGFILE]: the next commands run at the same time as those after `foreground`
foreground() { STEPS+=(-- --foreground); }
wait_background() { STEPS+=(-- --wait); }
run_steps() {
    local steps=("${STEPS[@]}")
    STEPS=()
    python -m utils.chain --gpus "${GPUS:-1}" "${steps[@]}"
}

# each_fold SCRIPT.py CONFIG [key=value ...]: one stage for every fold
each_fold() {
    local script=$1 config=$2 fold
    shift 2
    for fold in ${FOLDS:-0 1 2 3}; do
        step "$script" "$config" split="fold$fold" "$@"
    done
    run_steps
}
