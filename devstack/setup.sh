#!/bin/sh
# Makes .venv with the pinned packages. Says what is missing and how to get it when it cannot.
set -eu

VENV=.venv
fail() {
    printf '\n%s\n' "$1" >&2
    exit 1
}

python=
for candidate in python3 python3.11 python3.12 python3.13; do
    if command -v "$candidate" >/dev/null 2>&1 &&
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || fail "Python 3.11 or later is missing. On Debian 12: apt-get install python3 python3-venv"

if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    [ "$(id -u)" = 0 ] || fail "Python's venv module is missing. Run: sudo apt-get install python$version-venv"
    echo "Installing python$version-venv ..."
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "python$version-venv"
fi

echo "Making the Python environment in $VENV (a minute or two the first time) ..."
[ -x "$VENV/bin/python" ] || "$python" -m venv "$VENV"
"$VENV/bin/pip" install -qq --disable-pip-version-check --require-hashes -r requirements.lock ||
    fail "Installing the Python packages failed; the lines above say which. Is the package index reachable?"
"$VENV/bin/pip" install -qq --disable-pip-version-check --no-build-isolation --no-deps -e . ||
    fail "Installing this project into $VENV failed; the lines above say why."

"$VENV/bin/python" -m devstack.packages
touch "$VENV/.ready"
