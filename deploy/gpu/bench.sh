#!/usr/bin/env bash
# Measure sampling and training at Stable Diffusion's size on one GPU: bash deploy/gpu/bench.sh [OUT]
# MINUTES (9), SIZE (sd15) and DEVICE (cuda) can be changed; wheels in .whl are installed aside first (deploy/gpu/wheels.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${1:-${OUT:-runs/gpu}}
site=$(mktemp -d)
mkdir -p "$out"
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD
if compgen -G '.whl/*.whl' >/dev/null; then
  "${PYTHON:-python3}" -m pip install -q --no-index --no-deps --no-compile --target "$site" .whl/*.whl
  export PYTHONPATH=$site:$PWD
fi
"${PYTHON:-python3}" -m bench --parts sampling training --size "${SIZE:-sd15}" --device "${DEVICE:-cuda}" \
  --minutes "${MINUTES:-9}" --into "$out" 2>&1 | tee "$out/bench.log"
rm -rf "$site"
