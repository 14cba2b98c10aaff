#!/bin/sh
# Fetches Stable Diffusion 1.5 into /models once: the full-precision weights of one revision, loaded to see that they are whole.
set -eu
base=/models/stable-diffusion-v1-5
[ ! -e "$base/.complete" ] || exit 0
set -- stable-diffusion-v1-5/stable-diffusion-v1-5 --revision 451f4fe16113bff5a5d2269ed5ad43b0592e9a14 --local-dir "$base"
for part in model_index.json 'scheduler/*' 'text_encoder/*' 'tokenizer/*' 'unet/*' 'vae/*'; do set -- "$@" --include "$part"; done
for other in '*.bin' '*.fp16.*' '*non_ema*'; do set -- "$@" --exclude "$other"; done
hf download "$@"
pairforge bases verify "$base"
touch "$base/.complete"
