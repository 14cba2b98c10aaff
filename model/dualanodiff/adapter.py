"""Saves and loads adapters: folders with everything that few-shot training made, loaded strictly, without pickle.

card.json                  contents: base and its hash, data hashes, configuration, steps, loss curve, software
run.json                   the training run: when, how long, on what machine (apart, so that the rest is reproducible)
global/, anomaly/          `pytorch_lora_weights.safetensors` of either branch (and the shared text LoRA), in the format
                           that diffusers' `load_lora_weights` and peft read
interaction.safetensors    SAIM, unless trained without
background.safetensors     BCM, when trained
mask_net.safetensors       the mask network fine-tuned on the user's pairs, if any
reference/                 crops of the few-shot defects, which the quality checks compare with
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline
from peft import get_peft_model_state_dict
from safetensors.torch import save_file

from model.adapter_card import FORMAT_VERSION, describe_pair, image_hash, read_card_on
from model.data import references
from model.data.placement import Placement
from model.diffusion.base import Base
from model.diffusion.lora import TEXT_ADAPTER
from model.diffusion.stored_weights import LORA_FILE, contiguous, load_lora, load_module, read_weights, under
from model.dualanodiff.model import DualAnoDiffModel, build_model
from model.dualanodiff.unet import ANOMALY, GLOBAL
from model.masks.u2net import U2Net, load_u2net, save_u2net
from model.training.early_stopping import TrainingResult
from model.types import ImageArray, Pair, is_grey
from service.core.atomic_write import atomic_folder
from service.core.errors import UsageError
from service.core.options.dualanodiff import TrainingConfig
from service.core.strict_json import to_json
from service.core.uploads.reading import Range

METHOD = "dualanodiff"


@dataclass(slots=True)
class DualAnoDiffAdapter:
    """A loaded adapter.

    Attributes:
        model: the base with the adapter's weights, in evaluation mode.
        mask_net: the fine-tuned mask network, or None.
        references: crops of the real defects at their photographs' own scale.
        placements: positions of these crops.
    """

    model: DualAnoDiffModel
    card: dict[str, Any]
    mask_net: U2Net | None
    references: list[Pair]
    placements: list[Placement]

    @property
    def base(self) -> Base:
        """Return the base that it was trained on."""
        return self.model.base

    @property
    def resolution(self) -> int:
        """Return the side of the model's square images, pixels."""
        return self.model.config.resolution

    def references_of(self, defect: str | None) -> list[Pair]:
        """Return all references."""
        return self.references


def make_references(pairs: Sequence[Pair], config: TrainingConfig) -> tuple[list[Pair], list[Placement]]:
    """Crop every image's largest defects at their own scale, drawn from `config.seed`; also returns their positions."""
    return references.make_references(pairs, config.view, config.resolution, config.seed)


def make_card(
    model: DualAnoDiffModel,
    pairs: Sequence[Pair],
    placements: Sequence[Placement],
    result: TrainingResult,
    *,
    names: tuple[str, str],
    normals: Mapping[str, ImageArray] | None = None,
    brightness: Range | None = None,
) -> dict[str, Any]:
    """Make the adapter's card, which does not depend on when or where the training ran.

    Args:
        names: names of object and defect.
        normals: name → image of the defect-free images used in training.
        brightness: of the training request.
    """
    return {
        "format_version": FORMAT_VERSION,
        "method": METHOD,
        "object": names[0],
        "defect": names[1],
        "base": {"name": model.base.name, "sha256": model.base.digest, "license": model.base.card.get("license")},
        "config": model.config.as_dict(),
        "steps": result.steps,
        "kept_step": result.kept,
        "loss_curve": [list(point) for point in result.curve],
        "held_out": None if result.held_out is None else {"pair": result.held_out, "curve": result.held_out_curve},
        "data": [describe_pair(pair) for pair in pairs],
        "normals": [{"name": name, "image_sha256": image_hash(image)} for name, image in (normals or {}).items()],
        "greyscale": all(is_grey(pair.image) for pair in pairs),
        "brightness": None if brightness is None else list(brightness),
        "placements": [asdict(place) for place in placements],
        "software": {name: version(name) for name in ("pairforge", "torch", "diffusers", "peft", "transformers")},
    }


def save_adapter(
    folder: Path,
    model: DualAnoDiffModel,
    card: Mapping[str, Any],
    reals: Sequence[Pair],
    *,
    mask_net: U2Net | None = None,
    run: Mapping[str, Any] | None = None,
) -> None:
    """Write the adapter to a temporary folder and rename it; an existing folder is replaced.

    Args:
        folder: the adapter's folder; its parent must exist.
        reals: crops of the real defects, see `make_references`.
        run: the content of `run.json`.
    """
    with atomic_folder(folder) as aside:
        text = None
        if model.config.text_rank:
            text = get_peft_model_state_dict(model.text_encoder, adapter_name=TEXT_ADAPTER)
        for branch in (GLOBAL, ANOMALY):
            StableDiffusionPipeline.save_lora_weights(
                aside / branch,
                unet_lora_layers=get_peft_model_state_dict(model.denoiser.unet, adapter_name=branch),
                text_encoder_lora_layers=text,
            )
        if model.config.saim:
            save_file(contiguous(model.denoiser.interaction), aside / "interaction.safetensors")
        if model.denoiser.background is not None:
            save_file(contiguous(model.denoiser.background), aside / "background.safetensors")
        if mask_net is not None:
            save_u2net(mask_net, aside / "mask_net.safetensors")
        references.write_pairs(aside / "reference", reals)
        for name, content in (("run.json", run or {}), ("card.json", card)):
            (aside / name).write_text(to_json(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_adapter(folder: Path, base: Base) -> DualAnoDiffAdapter:
    """Load an adapter onto the base it was trained on.

    Raises:
        UsageError: if the base, the weights or the files are not as expected; names every difference.
    """
    card = read_card_on(folder, base.name, base.digest)
    config = TrainingConfig(**card["config"])
    model = build_model(base, config, card["object"], card["defect"])
    problems: list[str] = []
    for branch in (GLOBAL, ANOMALY):
        tensors = read_weights(folder / branch / LORA_FILE, problems)
        load_lora(model.denoiser.unet, branch, under(tensors, "unet."), f"{branch}/{LORA_FILE}", problems)
        if branch == GLOBAL and config.text_rank:
            own = under(tensors, "text_encoder.")
            load_lora(model.text_encoder, TEXT_ADAPTER, own, f"{branch}/{LORA_FILE}", problems)
    if config.saim:
        load_module(model.denoiser.interaction, folder / "interaction.safetensors", problems)
    if model.denoiser.background is not None:
        load_module(model.denoiser.background, folder / "background.safetensors", problems)
    reals = references.read_pairs(folder / "reference", [place["name"] for place in card["placements"]], problems)
    if problems:
        raise UsageError(problems, f"The adapter {folder} is damaged or incomplete")
    model.denoiser.eval().requires_grad_(False)
    model.text_encoder.eval().requires_grad_(False)
    mask_file = folder / "mask_net.safetensors"
    return DualAnoDiffAdapter(
        model=model,
        card=card,
        mask_net=load_u2net(mask_file).to(base.device) if mask_file.is_file() else None,
        references=reals,
        placements=[Placement(**place) for place in card["placements"]],
    )
