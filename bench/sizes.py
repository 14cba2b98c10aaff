"""Makes adapters of given sizes to measure: the shipped base; Stable Diffusion 1.5's architecture, random weights.

Speed does not depend on the weights, so nothing is downloaded and hardly anything is trained. Every trainable weight is
moved off its neutral start, because otherwise a comparison of outputs would compare two bare bases.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from model.data.placement import NormalImage
from model.diffusion.base import Base, load_base, silence_libraries
from model.dualanodiff.adapter import METHOD, DualAnoDiffAdapter, make_references
from model.dualanodiff.config import resolve_config
from model.dualanodiff.model import DualAnoDiffModel, build_model
from model.masks.u2net import FULL, OFFICIAL, PLAIN, U2Net, load_u2net, uniform
from model.pretrain.procedural.samples import DEFECT, OBJECT, SAMPLES
from model.types import Pair
from service.core.uploads.decoding import ImageLimits
from service.core.uploads.pairs import read_normals, read_pairs

SIZES = ("mini", "sd15", "tiny")

AWAKE = 0.02
"""Standard deviation of the change of every trainable weight, at width 100; smaller in wider layers."""

TOKENS, VOCABULARY = 77, 49408
"""Of CLIP ViT-L/14's text encoder, which Stable Diffusion 1.5 uses."""

WORDS = ("a", "with", "vfx", "sks")
"""The words of nested prompts with rare tokens."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes that differ between Stable Diffusion 1.5 and its miniature.

    Attributes:
        side: side of the images, pixels.
        unet, vae: channels per level.
        blocks: residual blocks per level of either.
        heads: heads of every attention (the U-Net's `attention_head_dim`, which counts heads despite its name).
        text: width, feed-forward width, layers and heads of the text encoder.
        groups: groups of every normalisation.
        card: the base's card.
    """

    side: int
    unet: tuple[int, ...]
    vae: tuple[int, ...]
    blocks: int
    heads: int
    text: tuple[int, int, int, int]
    groups: int
    card: dict[str, Any]


ARCHITECTURES = {
    "sd15": Architecture(512, (320, 640, 1280, 1280), (128, 256, 512, 512), 2, 8, (768, 3072, 12, 12), 32, {}),
    "tiny": Architecture(16, (16, 16), (8, 8), 1, 2, (16, 32, 1, 2), 8, {"sampling": {"steps": 4}}),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """An adapter to measure, and inputs for it.

    Attributes:
        adapter: an adapter with random weights.
        object_net: finds products.
        pairs, normals: the shipped samples.
    """

    adapter: DualAnoDiffAdapter
    object_net: U2Net
    pairs: list[Pair]
    normals: list[NormalImage]


def build_subject(size: str, device: str) -> Subject:
    """Make an adapter of one of the sizes, in evaluation mode."""
    silence_libraries()
    base = load_base("mini", device=device) if size == "mini" else random_base(size, device)
    part, object_ = _mask_networks(base)
    pairs, normals = samples()
    config = resolve_config(base, {"seed": 1})
    model = build_model(base, config, OBJECT, DEFECT)
    awaken(model)
    model.denoiser.eval()
    model.text_encoder.eval()
    references, placements = make_references(pairs, config)
    card = {"method": METHOD, "object": OBJECT, "defect": DEFECT, "config": config.as_dict(), "greyscale": False}
    return Subject(DualAnoDiffAdapter(model, card, part, references, placements), object_, pairs, normals)


def samples() -> tuple[list[Pair], list[NormalImage]]:
    """Load the shipped sample pairs and normal images."""
    limits = ImageLimits()
    pairs = read_pairs(SAMPLES / "images", SAMPLES / "masks", limits).pairs
    normals = read_normals(SAMPLES / "normals", limits).images
    return (
        [Pair(pair.name, pair.image, pair.mask) for pair in pairs],
        [NormalImage(normal.name, normal.image) for normal in normals],
    )


def awaken(model: DualAnoDiffModel, seed: int = 0) -> None:
    """Move every trainable weight off its neutral start, as if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.trainable().values():
        fan = parameter[0].numel() if parameter.ndim > 1 else 100
        drawn = torch.randn(parameter.shape, generator=generator)
        parameter.data += (AWAKE * (100 / max(100, fan)) ** 0.5 * drawn).to(parameter.device)


def random_base(size: str, device: str) -> Base:
    """Make a base of Stable Diffusion's architecture, directly on the device."""
    form = ARCHITECTURES[size]
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        networks: dict[str, Any] = {"unet": _unet(form), "vae": _autoencoder(form), "text_encoder": _text_encoder(form)}
    for network in networks.values():
        network.requires_grad_(False).eval().to(device)
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return Base(
        name=size,
        folder=Path(size),
        digest="random",
        **networks,
        tokenizer=_tokenizer(),
        scheduler=dict(scheduler.config),
        card=form.card,
    )


def _unet(form: Architecture) -> UNet2DConditionModel:
    crossed = len(form.unet) - 1
    return UNet2DConditionModel(
        sample_size=form.side >> (len(form.vae) - 1),
        down_block_types=("CrossAttnDownBlock2D",) * crossed + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * crossed,
        block_out_channels=form.unet,
        layers_per_block=form.blocks,
        attention_head_dim=form.heads,
        cross_attention_dim=form.text[0],
        norm_num_groups=form.groups,
    )


def _autoencoder(form: Architecture) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(form.vae),
        up_block_types=("UpDecoderBlock2D",) * len(form.vae),
        block_out_channels=form.vae,
        layers_per_block=form.blocks,
        latent_channels=4,
        norm_num_groups=form.groups,
        sample_size=form.side,
    )


def _text_encoder(form: Architecture) -> CLIPTextModel:
    width, feed_forward, layers, heads = form.text
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=feed_forward,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=TOKENS,
        )
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer with CLIP's prompt length and begin and end tokens, but few words."""
    words = {word: number for number, word in enumerate(("<unknown>", *WORDS))}
    begin, end = VOCABULARY - 2, VOCABULARY - 1
    tokenizer = Tokenizer(WordLevel({**words, "<begin>": begin, "<end>": end}, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="<begin> $A <end>", special_tokens=[("<begin>", begin), ("<end>", end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=TOKENS,
        pad_token="<end>",
        bos_token="<begin>",
        eos_token="<end>",
        unk_token="<unknown>",
    )


def _mask_networks(base: Base) -> tuple[U2Net, U2Net]:
    """Make networks for parts and products: the shipped ones, or random ones of the published size for large bases."""
    files = [base.folder / "u2net" / f"{name}.safetensors" for name in ("part", "object")]
    if all(file.is_file() for file in files):
        part, object_ = (load_u2net(file) for file in files)
    else:
        widths, preprocessing = (FULL, OFFICIAL) if base.name == "sd15" else (uniform(2, 4), PLAIN)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            part, object_ = (U2Net(widths, preprocessing).eval().requires_grad_(False) for _ in range(2))
    return part.to(base.device), object_.to(base.device)
