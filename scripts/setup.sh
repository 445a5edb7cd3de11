#!/bin/sh
# Makes the environment that a make target needs, from nothing but a Python >= 3.11.
#
#   sh scripts/setup.sh demo|dev|compare|empty [FOLDER]
#
# Uses uv where there is one on PATH, else python3 -m venv and pip. Everything installed is pinned
# with hashes and comes as a wheel: no compiler is ever started. $PYTHON chooses another Python.
set -eu
cd "$(dirname "$0")/.."

what=${1:-dev}
venv=${2:-.venv}

# A Python that is not there must be an error with a name, not a download that may hang.
UV_PYTHON_DOWNLOADS=never
export UV_PYTHON_DOWNLOADS
# The environment's own tools decide, not those of a shell in which another one is active.
unset VIRTUAL_ENV PYTHONHOME PYTHONPATH || true

fail() {
    echo "penstock: $*" >&2
    exit 1
}

has_uv() { command -v uv >/dev/null 2>&1; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# The first one that runs: a version manager's stand-in may be on PATH and run nothing.
find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14}; do
        if new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    if [ -z "${PYTHON:-}" ] && has_uv; then uv python find '>=3.11' 2>/dev/null && return; fi
    fail "Python 3.11 or newer is needed, found $(found_python):" \
        "install one, or name it: make PYTHON=/path/to/python3.11"
}

found_python() { "${PYTHON:-python3}" --version 2>/dev/null || echo "no ${PYTHON:-python3}"; }

make_venv() {
    if [ -x "$venv/bin/python" ] && new_enough "$venv/bin/python"; then return; fi
    python=$(find_python)
    has_uv || "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python has no venv module: install it (Debian, Ubuntu: apt install python3-venv)," \
            "or put uv on PATH"
    echo "penstock: making $venv with $("$python" --version)"
    # What stands there cannot run any more: its Python was too old, or is gone.
    rm -rf "$venv"
    if has_uv; then
        uv venv --quiet --python "$python" "$venv"
    else
        "$python" -m venv "$venv"
    fi
}

# pip and uv take the same options here.
install() {
    if has_uv; then
        uv pip install --quiet --python "$venv/bin/python" "$@"
        return
    fi
    # An environment that uv once made has no pip.
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 ||
        "$venv/bin/python" -m ensurepip >/dev/null
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

install_pinned() {
    echo "penstock: installing requirements/$1.txt"
    install --require-hashes --only-binary :all: -r "requirements/$1.txt" ||
        fail "requirements/$1.txt could not be installed on $(uname -sm) with" \
            "$("$venv/bin/python" --version) (see above): check the network; where a wheel is" \
            "missing, use Python 3.11 to 3.13 on Linux with glibc >= 2.28, or macOS"
}

make_venv
case $what in
    empty) ;;
    compare) install_pinned compare ;;
    demo | dev)
        install_pinned "$what"
        install --no-deps --no-build-isolation --editable .
        ;;
    *) fail "setup.sh takes demo, dev, compare or empty, got $what" ;;
esac
