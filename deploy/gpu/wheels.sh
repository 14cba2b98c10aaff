#!/usr/bin/env bash
# Fetch the wheels that a GPU machine without a package index lacks, into .whl: deploy/gpu/wheels.sh [PYTHON VERSION]
# That machine has torch, transformers, peft, safetensors, tokenizers, scipy, scikit-image, opencv and typer already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
platforms=(); for tag in 2_28 2_27 2_26 2_24 2_17 2014 2010 2_5 1; do
  case "$tag" in *_*) platforms+=(--platform "manylinux_${tag}_x86_64") ;; *) platforms+=(--platform "manylinux${tag}_x86_64") ;; esac
done
names=(annotated-types diffusers importlib-metadata pydantic pydantic-core pydantic-settings python-dotenv typing-inspection structlog rich pycocotools)
pins=(); for name in "${names[@]}"; do
  pin=$(grep -iE "^${name//-/[-_]}==" constraints.txt || true)
  pins+=("${pin:-$name}")
done
rm -rf .whl
"${PYTHON:-python3}" -m pip download -q --no-deps --only-binary=:all: --python-version "${1:-3.12}" --implementation cp \
  "${platforms[@]}" -d .whl "${pins[@]}"
du -sh .whl
