# Sourced by the scripts of this folder: a virtual environment in .venv with the listed requirements. VENV=none uses the
# Python that is active already.
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
