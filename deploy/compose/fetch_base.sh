#!/bin/sh
# Makes sure that the base PAIRFORGE_BASE is there, by default Stable Diffusion 1.5, which is fetched once: the full-precision
# weights of one revision, loaded to see that they are whole. Any other folder is the operator's own and only looked at.
set -eu
# Another revision changes PAIRFORGE_BASE in docker-compose.yml and in deploy/k8s/overlays/nvidia-gpu, too.
revision=451f4fe16113bff5a5d2269ed5ad43b0592e9a14
fetched=/models/stable-diffusion-v1-5-$(printf %.12s "$revision")
base=${PAIRFORGE_BASE:-$fetched}
[ ! -e "$base/.complete" ] || exit 0
if [ "$base" != "$fetched" ]; then
  exec pairforge bases verify "$base"
fi
licence="CreativeML OpenRAIL-M, https://huggingface.co/spaces/CompVis/stable-diffusion-license"
echo "Stable Diffusion 1.5 is licensed under $licence: who fetches it, or passes it on, agrees to its restrictions of use."
hf download stable-diffusion-v1-5/stable-diffusion-v1-5 "--revision=$revision" "--local-dir=$base" \
  '--include=*.json' '--include=tokenizer/*' \
  '--include=*/model.safetensors' '--include=*/diffusion_pytorch_model.safetensors' '--exclude=safety_checker/*'
pairforge bases verify "$base"
printf '{"license": "CreativeML-OpenRAIL-M", "revision": "%s"}\n' "$revision" > "$base/card.json"
touch "$base/.complete"
