#!/usr/bin/env bash
# The oldest versions that pyproject.toml allows, tried: an environment with each requirement at its lower bound, helios-tiny
# from prompt to MP4 and through a workflow, and a part of the tests. web/docs/developing.md says what came of it.
# Wants Python 3.10, and 6 GB on the disk where torch comes with CUDA. VENV=FOLDER keeps, or takes, the environment.
#
#     PYTHON=python3.10 tests/oldest.sh [TESTS]
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
venv=${VENV:-$work/venv}
export PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 OMP_NUM_THREADS=1 HELIOS_CACHE=off

bounds=$(sed -n '/^dependencies/,/^]/s/.*"\([a-z]*\)>=\([0-9.]*\)".*/\1==\2/p' pyproject.toml)
if [ ! -x "$venv/bin/python" ]; then
  "${PYTHON:-python3.10}" -m venv "$venv"
  # shellcheck disable=SC2086
  "$venv/bin/pip" install -q $bounds pytest==8.0.0 matplotlib==3.8.0
fi
"$venv/bin/python" -V
echo $bounds

mkdir "$work/tree" && ln -s "$PWD" "$work/tree/helios_video" # the package's name, whatever the folder's
export PYTHONPATH=$work/tree
helios() { "$venv/bin/python" -m helios_video.helios_core.cli "$@"; }
helios doctor
helios generate --prompt "a red circle moving left" --frames 66 -o "$work/out.mp4"
helios run workflows/text_to_video.json --output-dir "$work"
# What compares with diffusers and sentencepiece, and what needs MLX, is left out: their own bounds are higher.
[ $# -gt 0 ] || set -- tests/test_cli.py tests/media tests/join tests/steps tests/pyramid tests/text tests/checkpoint \
  tests/commands
"$venv/bin/python" -m pytest -q -p no:cacheprovider -m "not slow" \
  -k "not diffusers and not oracle and not sentencepiece and not reference_s and not mlx" "$@"
