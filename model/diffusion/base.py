"""Loads a base: any folder or hub id in diffusers' Stable Diffusion format, such as the shipped mini base.

Widths, latent size, resolution and prediction type are read from the base's configuration. A base may have
four extras: SAIM weights to start from (`interaction/`), a start of filling masks (`fill/`), U²-Nets (`u2net/`), and a
card (`card.json`) with its origin and recommended few-shot settings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from model.runtime.matrix_units import fastest_precision
from service.core.errors import TransientError, UsageError

SHIPPED = Path(__file__).parents[1] / "bases"
"""Folder of the shipped bases, one folder each."""

REQUIRED = {
    "unet": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "tokenizer": "",
    "scheduler": "scheduler_config.json",
}
"""Component → the file that it requires; the tokenizer has several forms."""

FILLING = Path("fill", "fill.safetensors")
"""Where a base keeps its start of filling masks."""

WEIGHTED = ("unet", "vae", "text_encoder")


@dataclass(slots=True)
class Base:
    """A loaded base model, frozen.

    Attributes:
        name: its name as given by the user.
        digest: sha256 over the weights and configurations, the base's identity in adapter cards.
        scheduler: the scheduler's configuration.
        card: the base's own card, empty when it has none.
        interaction: SAIM weights to start from, or None.
        filling: weights for filling masks to start from (`model.anomalydiffusion.start`), or None. They are no part of
            the base's identity: an adapter holds all of its own.
    """

    name: str
    folder: Path
    digest: str
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: PreTrainedTokenizerBase
    scheduler: dict[str, Any]
    card: dict[str, Any] = field(default_factory=dict)
    interaction: dict[str, Tensor] | None = None
    filling: dict[str, Tensor] | None = None

    @property
    def factor(self) -> int:
        """Return the pixels per latent cell, along one side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def resolution(self) -> int:
        """Return the side of the square images that the base was trained on, pixels."""
        return int(self.unet.config.sample_size) * self.factor

    @property
    def latent_channels(self) -> int:
        """Return the channels C_lat of a latent."""
        return int(self.vae.config.latent_channels)

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        return self.unet.device

    def mask_weights(self, name: str) -> Path | None:
        """Return the weights of its mask network "part" or "object"; None if there are none.

        Without an own "object" network, it is the mini base's. That base's "part" network stays with it: it was trained
        on parts of 64 pixels, and on larger ones it finds less than the distance from grey.
        """
        folders = (self.folder, SHIPPED / "mini") if name == "object" else (self.folder,)
        own = (folder / "u2net" / f"{name}.safetensors" for folder in folders)
        return next((file for file in own if file.is_file()), None)

    @property
    def few_shot(self) -> dict[str, Any]:
        """Return the card's recommended training settings, see `sampling`; empty without any."""
        return self._recommended("few_shot")

    @property
    def sampling(self) -> dict[str, Any]:
        """Return the card's recommended sampling settings, in fp32 where bf16 is slow; empty without any."""
        return self._recommended("sampling")

    def _recommended(self, what: str) -> dict[str, Any]:
        settings = dict(self.card.get(what, {}))
        if "precision" in settings:
            settings["precision"] = fastest_precision(self.device, settings["precision"])
        return settings


def shipped_bases() -> list[str]:
    """Return the names of the bases inside the package."""
    return sorted(path.name for path in SHIPPED.glob("*") if (path / "model_index.json").is_file())


def locate_base(source: str) -> Path:
    """Return the folder of a shipped base, a path, or a hub id (downloaded once, then cached).

    Raises:
        UsageError: if it is none of these.
        TransientError: if the hub cannot be reached.
    """
    if source in shipped_bases():
        return SHIPPED / source
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        known = ", ".join(shipped_bases()) or "none"
        raise UsageError(
            f"base {source!r} does not exist: give a shipped name ({known}), a folder, or a hub id like owner/model"
        )
    patterns = [f"{part}/*" for part in (*REQUIRED, "interaction", "fill", "u2net")] + ["*.json"]
    try:
        return Path(
            snapshot_download(source, allow_patterns=patterns, ignore_patterns=["*.bin", "*.msgpack", "*non_ema*"])
        )
    except (HfHubHTTPError, HFValidationError) as error:
        raise UsageError(f"the model hub refuses to send {source!r}: {error}") from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise TransientError(
            f"{source!r} is not a local folder, and the model hub cannot be reached: {error}"
        ) from error


def missing_parts(folder: Path) -> list[str]:
    """Return one sentence for each part of the Stable Diffusion format that a base folder lacks."""
    problems = []
    for part, needed in REQUIRED.items():
        if not (folder / part).is_dir():
            problems.append(f"the folder {part}/ is missing")
        elif needed and not (folder / part / needed).is_file():
            problems.append(f"{part}/{needed} is missing")
        elif not needed and not any((folder / part).iterdir()):
            problems.append(f"{part}/ is empty")
        elif part in WEIGHTED and not weight_files(folder / part):
            problems.append(f"{part}/ contains no weights (*.safetensors)")
        elif part in WEIGHTED:
            problems += _missing_shards(folder / part)
    return problems


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of one component; half-precision variants only if there are no others."""
    files = sorted(folder.glob("*.safetensors"))
    full = [path for path in files if ".fp16." not in path.name and ".non_ema." not in path.name]
    return full or files


def base_digest(folder: Path) -> str:
    """Compute the sha256 over names and contents of all weights and configurations that determine the results."""
    total = hashlib.sha256()
    files = [folder / "scheduler" / "scheduler_config.json"]
    for part in WEIGHTED:
        files += [folder / part / "config.json", *weight_files(folder / part)]
    files += sorted((folder / "interaction").glob("*.safetensors"))
    files += sorted(path for path in (folder / "tokenizer").iterdir() if path.is_file())
    for path in files:
        total.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def read_card(folder: Path) -> dict[str, Any]:
    """Read the base's card; empty if it has none.

    Raises:
        UsageError: if it is not valid JSON.
    """
    path = folder / "card.json"
    card: dict[str, Any] = _attempt(path, _read_json) if path.is_file() else {}
    return card


def silence_libraries() -> None:
    """Turn off the libraries' progress bars and messages, so that they do not mix with the program's own."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def load_base(source: str, *, device: str = "cpu") -> Base:
    """Load a base and freeze it.

    Args:
        source: shipped name, folder, or hub id.
        device: device to load it to.

    Raises:
        UsageError: if parts are missing or unreadable; lists each.
    """
    folder = locate_base(source)
    if problems := missing_parts(folder):
        raise UsageError(problems, f"{folder} is not a complete base in diffusers' Stable Diffusion format")
    networks = {
        "unet": _network(folder / "unet", UNet2DConditionModel, torch_dtype=torch.float32, low_cpu_mem_usage=False),
        "vae": _network(folder / "vae", AutoencoderKL, torch_dtype=torch.float32, low_cpu_mem_usage=False),
        "text_encoder": _network(folder / "text_encoder", CLIPTextModel, dtype=torch.float32),
    }
    if problems := _mismatches(**networks):
        raise UsageError(problems, f"{folder} is not a text-to-image base like Stable Diffusion")
    for network in networks.values():
        network.requires_grad_(False).eval().to(device)
    interaction = folder / "interaction" / "interaction.safetensors"
    filling = folder / FILLING
    return Base(
        name=source,
        folder=folder,
        digest=base_digest(folder),
        **networks,
        tokenizer=_attempt(folder / "tokenizer", AutoTokenizer.from_pretrained),
        scheduler=_attempt(folder / "scheduler" / "scheduler_config.json", _read_json),
        card=read_card(folder),
        interaction=_attempt(interaction, load_file) if interaction.is_file() else None,
        filling=_attempt(filling, load_file) if filling.is_file() else None,
    )


def _mismatches(unet: UNet2DConditionModel, vae: AutoencoderKL, text_encoder: CLIPTextModel) -> list[str]:
    """Describe why the parts do not fit together, as in inpainting bases or bases with two text encoders."""
    problems = []
    channels, latents = int(unet.config.in_channels), int(vae.config.latent_channels)
    if channels != latents:
        problems.append(f"the U-Net takes {channels} channels, but the autoencoder makes {latents}")
    wanted, given = unet.config.cross_attention_dim, text_encoder.config.hidden_size
    if wanted != given:
        problems.append(f"the U-Net attends to embeddings of width {wanted}, but the text encoder makes {given}")
    if unet.config.addition_embed_type is not None:
        problems.append(
            f"the U-Net needs conditions of type {unet.config.addition_embed_type!r}, which are not supported"
        )
    return problems


def _network(folder: Path, kind: Any, **options: Any) -> Any:
    """Load a network and check that no weight is missing; `from_pretrained` would initialise it at random."""
    variant = "fp16" if all(".fp16." in path.name for path in weight_files(folder)) else None

    def load(path: Path) -> Any:
        network, report = kind.from_pretrained(path, variant=variant, output_loading_info=True, **options)
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"{len(missing)} weights are missing, first {missing[0]}")
        return network

    return _attempt(folder, load)


def _attempt(path: Path, load: Callable[[Path], Any]) -> Any:
    try:
        return load(path)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise UsageError(f"{path} cannot be loaded: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _missing_shards(folder: Path) -> list[str]:
    problems = []
    for index in folder.glob("*.safetensors.index*.json"):
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        problems += [f"{folder.name}/{name} is missing" for name in sorted(names) if not (folder / name).is_file()]
    return problems


def dtype_of(precision: str) -> torch.dtype:
    """Return the type of weights and computation for "fp32" or "bf16"."""
    return torch.bfloat16 if precision == "bf16" else torch.float32
