#!/usr/bin/env bash
# Make the embedded base on one GPU and pack it for the way back: bash deploy/gpu/pretrain.sh [OUT]
# MINUTES (9), PRESET (gpu) and DEVICE (cuda) can be changed; wheels in .whl are installed aside first (deploy/gpu/wheels.sh).
# OUT gets base.tar.00, base.tar.01 ... of at most 15 MiB, and the log. Afterwards: cat OUT/base.tar.* | tar x -C model/bases
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${1:-${OUT:-runs/gpu}}
work=$(mktemp -d)
mkdir -p "$out"
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD
if compgen -G '.whl/*.whl' >/dev/null; then
  "${PYTHON:-python3}" -m pip install -q --no-index --no-deps --no-compile --target "$work/site" .whl/*.whl
  export PYTHONPATH=$work/site:$PWD
fi
rm -f "$out"/base.tar.*
: >"$out/pretrain.log"
pretrain() {
  "${PYTHON:-python3}" -c 'from model.cli import main; main()' pretrain --preset "${PRESET:-gpu}" --minutes "${MINUTES:-9}" \
    --device "${DEVICE:-cuda}" --work "$work/state" --out "$work/mini" "$@" 2>&1 | tee -a "$out/pretrain.log"
}
pack() { tar c -C "$work" mini | split -b 15M -d - "$out/base.tar."; }
# The base is packed before it is measured, so that it comes back even where the measuring fails or time runs out.
pretrain --stage render --stage autoencoder --stage pairs --stage masks --stage assemble
pack
pretrain --stage measure
pack
rm -rf "$work"
ls -l "$out"
