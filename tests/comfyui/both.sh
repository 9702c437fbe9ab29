#!/usr/bin/env bash
# tests/comfyui in several ComfyUIs, one after the other: tests/comfyui/both.sh FOLDER:PYTHON [FOLDER:PYTHON ...] [-- WHAT]
#   FOLDER  a ComfyUI        PYTHON  the Python that has its requirements
#   WHAT    arguments of pytest; without them, all of tests/comfyui. Fails if it fails in one of them.
set -uo pipefail
cd "$(dirname "$0")/../.."

pairs=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do pairs+=("$1"); shift; done
[ $# -gt 0 ] && shift
[ ${#pairs[@]} -gt 0 ] || { sed -n '2,4s/^# *//p' "$0" >&2; exit 2; }
what=("$@")
[ ${#what[@]} -gt 0 ] || what=(tests/comfyui)

status=0 said=()
for pair in "${pairs[@]}"; do
  folder=${pair%:*} python=${pair##*:}
  if [ ! -f "$folder/main.py" ] || [ ! -x "$python" ]; then
    echo "$pair: wanted a ComfyUI's folder and its Python, with a colon between" >&2
    exit 2
  fi
  version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$folder/comfyui_version.py")
  printf '\n== ComfyUI %s\n' "$version"
  if COMFYUI_PATH=$folder COMFYUI_PYTHON=$python "${PYTHON:-python}" -m pytest -q "${what[@]}"; then
    said+=("ComfyUI $version: passed")
  else
    said+=("ComfyUI $version: FAILED") status=1
  fi
done
printf '\n'
printf '%s\n' "${said[@]}"
exit "$status"
