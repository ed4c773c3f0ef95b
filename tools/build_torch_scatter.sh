#!/usr/bin/env bash
# Builds torch_scatter against the torch of the given Python, and installs it. The wheel is kept in .wheels/, by
# Python and torch version, for the next time: a wheel for another torch would crash.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
pip=("$python" -m pip --quiet --disable-pip-version-check)

key=$("$python" -c 'import sys, torch; print("torch%s-cp%d%d" % (torch.__version__, *sys.version_info[:2]))')
wheels=.wheels/$key
if ! compgen -G "$wheels/torch_scatter-*.whl" > /dev/null; then
    if ! command -v "${CXX:-c++}" > /dev/null; then
        echo "torch_scatter needs a C++ compiler, and ${CXX:-c++} was not found: install one, or leave" \
            "torch_scatter out with 'make test SCATTER=0'" >&2
        exit 1
    fi
    echo "Building torch_scatter for $key, this takes 3 to 10 minutes, once ..."
    "${pip[@]}" install 'setuptools>=77' wheel
    # Its extensions compile side by side (setup.cfg), but not with CUDA, where torch switches compilers under way.
    if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
        export DIST_EXTRA_CONFIG=$PWD/setup.cfg
    fi
    building=$(mktemp -d)
    trap 'rm -rf "$building"' EXIT
    CFLAGS="-g0 ${CFLAGS:-}" "${pip[@]}" wheel --no-cache-dir --no-deps --no-build-isolation \
        --constraint constraints.txt --wheel-dir "$building" torch_scatter
    mkdir -p "$wheels"
    mv "$building"/torch_scatter-*.whl "$wheels/"
fi
"${pip[@]}" install --no-deps --no-index --force-reinstall --find-links "$wheels" torch_scatter
"$python" -c 'import torch_scatter'
