"""A base model of the Stable Diffusion architecture with random weights, small enough to run in milliseconds.

Its folder has the standard diffusers layout, so that it loads through the same `from_pretrained` code as a real base.
Pixels are 32 × 32, latents 4 × 8 × 8; in Stable Diffusion 1.5's format pixels are 64 × 64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

PredictionType = Literal["epsilon", "v_prediction"]

PIXEL_SIZE = 32
SD_PIXEL_SIZE = 64
TOKENS = 16
TEXT_WIDTH = 32
WORDS = ["a", "with", "of", "the", "vfx", "sks", "metal", "tile", "product", "defect", "anomaly", "crack", "break"]


def build_tiny_base(
    folder: Path, prediction_type: PredictionType = "epsilon", seed: int = 0, *, like_sd: bool = False
) -> Path:
    """Write the base into `folder` and return the folder; the same seed gives the same weights.

    Args:
        like_sd: whether all has the format of Stable Diffusion 1.5, with ε-prediction: CLIP's byte pairs, 77 tokens,
            768 wide; blocks, layers, heads and groups of U-Net and autoencoder; the scheduler. Only channels, layers of
            the text encoder, words, and the side of the pictures are fewer.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = _clip_tokenizer() if like_sd else _tokenizer()
        pipeline = StableDiffusionPipeline(
            vae=_sd_autoencoder() if like_sd else _autoencoder(),
            text_encoder=_text_encoder(tokenizer, 768, 12) if like_sd else _text_encoder(tokenizer, TEXT_WIDTH, 4),
            tokenizer=tokenizer,
            unet=_sd_unet() if like_sd else _unet(),
            scheduler=_sd_scheduler() if like_sd else _scheduler(prediction_type),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder)
    return folder


def _sd_unet() -> UNet2DConditionModel:
    """Every setting as in Stable Diffusion 1.5's `unet/config.json` but the channels, 320 to 1280, and the side, 64."""
    return UNet2DConditionModel(
        sample_size=SD_PIXEL_SIZE // 8,
        in_channels=4,
        out_channels=4,
        center_input_sample=False,
        flip_sin_to_cos=True,
        freq_shift=0,
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        block_out_channels=(32, 64, 64, 64),
        layers_per_block=2,
        downsample_padding=1,
        mid_block_scale_factor=1,
        act_fn="silu",
        norm_num_groups=32,
        norm_eps=1e-5,
        cross_attention_dim=768,
        attention_head_dim=8,
    )


def _sd_autoencoder() -> AutoencoderKL:
    """Likewise; its channels are 128 to 512 there, and the side is 512."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=2,
        act_fn="silu",
        latent_channels=4,
        norm_num_groups=32,
        sample_size=SD_PIXEL_SIZE,
        scaling_factor=0.18215,
    )


def _sd_scheduler() -> PNDMScheduler:
    """Every setting of Stable Diffusion 1.5's `scheduler/scheduler_config.json`."""
    return PNDMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=8,
    )


def _autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=PIXEL_SIZE,
    )


def _text_encoder(tokenizer: PreTrainedTokenizerBase, width: int, heads: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=heads,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    special = ["<pad>", "<start>", "<end>", "<unk>"]
    words = {word: number for number, word in enumerate(special + WORDS)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[("<start>", words["<start>"]), ("<end>", words["<end>"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=TOKENS,
        pad_token="<pad>",
        bos_token="<start>",
        eos_token="<end>",
        unk_token="<unk>",
    )


def _clip_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with the letters, and the words of this module, as its only pieces."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces, merges = [*letters, *(f"{letter}</w>" for letter in letters)], []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merged = parts[0] + parts[1]
            if merged not in pieces:
                pieces.append(merged)
                merges.append((parts[0], parts[1]))
            parts[:2] = [merged]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def _scheduler(prediction_type: PredictionType) -> DDIMScheduler:
    """Stable Diffusion 1.5's schedule; with v-prediction, zero terminal SNR and trailing steps (arXiv:2305.08891)."""
    v_prediction = prediction_type == "v_prediction"
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
        rescale_betas_zero_snr=v_prediction,
        timestep_spacing="trailing" if v_prediction else "leading",
    )
