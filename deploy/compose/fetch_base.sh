#!/bin/sh
# Fetches Stable Diffusion 1.5 into /models once: the full-precision weights of one revision, loaded to see that they are whole.
set -eu
# Another revision changes PAIRFORGE_BASE in docker-compose.yml, too.
revision=451f4fe16113bff5a5d2269ed5ad43b0592e9a14
base=/models/stable-diffusion-v1-5-$(printf %.12s "$revision")
[ ! -e "$base/.complete" ] || exit 0
hf download stable-diffusion-v1-5/stable-diffusion-v1-5 "--revision=$revision" "--local-dir=$base" \
  '--include=*.json' '--include=tokenizer/*' \
  '--include=*/model.safetensors' '--include=*/diffusion_pytorch_model.safetensors' '--exclude=safety_checker/*'
pairforge bases verify "$base"
touch "$base/.complete"
