"""Saves and loads adapters: folders with everything that few-shot training made, loaded strictly, without pickle.

card.json            contents: base and its hash, data hashes, defect types, configuration, steps, loss curve, software
run.json             the training run: when, how long, on what machine (apart, so that the rest is reproducible)
embeddings.safetensors, spatial.safetensors
                     the learned words of the defect types, and the encoder of masks
inpainting.safetensors
                     the weights by which the U-Net sees masks, where it does
mask_words.safetensors
                     the learned words of the types' masks, where they were learned
fill/                `pytorch_lora_weights.safetensors` of the LoRA that fills masks, where one was trained
masks/               the real masks, whole, from which new ones are made
reference/           crops of the real defects, which the quality checks compare with
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import StableDiffusionPipeline
from peft import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file

from model.adapter_card import FORMAT_VERSION, describe_pair, image_hash, read_card_on
from model.anomalydiffusion.config import NAME
from model.anomalydiffusion.mask_generator import MaskWords, new_mask_words
from model.anomalydiffusion.model import FILL_ADAPTER, AnomalyDiffusionModel, build_model
from model.data import references
from model.data.crops import DEFECTS_PER_PAIR, find_defects
from model.data.placement import NormalImage, Placement
from model.diffusion.base import Base
from model.diffusion.stored_weights import LORA_FILE, contiguous, load_lora, load_module, read_weights, under
from model.training.early_stopping import TrainingResult
from model.types import ImageArray, MaskArray, Pair, is_grey
from service.core.atomic_write import atomic_folder
from service.core.errors import UsageError
from service.core.options.anomalydiffusion import AnomalyTrainingConfig
from service.core.strict_json import to_json
from service.core.uploads.reading import Range

MASK_FILE = "mask_words.safetensors"

MATCHED = "normal_guidance"
"""Where the card says how far each type's defects are pushed, see `model.anomalydiffusion.calibration`."""


@dataclass(frozen=True, slots=True)
class RealMask:
    """The mask of a real photograph, `(H, W)` bool, and the number of its defect type."""

    kind: int
    mask: MaskArray


@dataclass(slots=True)
class AnomalyDiffusionAdapter:
    """A loaded adapter.

    Attributes:
        model: the base with the adapter's weights, in evaluation mode.
        masks: the real masks, whole.
        references: crops of the real defects at their photographs' own scale.
        placements: positions of these crops.
        mask_words: draw masks; None where that was not learned.
        crops: numbers of the references of each real mask.
    """

    model: AnomalyDiffusionModel
    card: dict[str, Any]
    masks: list[RealMask]
    references: list[Pair]
    placements: list[Placement]
    mask_words: MaskWords | None = None
    crops: list[range] = field(init=False)

    def __post_init__(self) -> None:
        counts = [min(len(find_defects(real.mask)[1]), DEFECTS_PER_PAIR) for real in self.masks]
        ends = np.cumsum(counts).tolist()
        self.crops = [range(end - count, end) for count, end in zip(counts, ends, strict=True)]

    def references_of(self, defect: str | None) -> list[Pair]:
        """Return the references of a defect type; all of them without one."""
        if defect is None:
            return self.references
        return [pair for pairs in self.references_by_photograph(defect) for pair in pairs]

    def references_by_photograph(self, defect: str) -> list[list[Pair]]:
        """Return the references of a defect type, those of each photograph by themselves."""
        kind = self.model.types.index(defect)
        own = [crops for real, crops in zip(self.masks, self.crops, strict=True) if real.kind == kind]
        return [[self.references[number] for number in crops] for crops in own]

    def normal_guidance_of(self, kind: int) -> float:
        """Return how far training found that a type's defects must be pushed away from normals; 1 where it did not ask.

        Cards of before have one number for all types.
        """
        matched = self.card.get(MATCHED, {})
        return float(matched.get(self.model.types[kind], 1.0) if isinstance(matched, dict) else matched)

    def photograph(self, number: int) -> tuple[ImageArray, MaskArray]:
        """Return a real photograph as far as the adapter has kept it.

        Args:
            number: of the real mask.

        Returns:
            `(H, W, 3)` uint8, and `(H, W)` bool, where it is unknown.
        """
        height, width = self.masks[number].mask.shape
        image, unknown = np.zeros((height, width, 3), np.uint8), np.ones((height, width), np.bool_)
        for crop in self.crops[number]:
            place = self.placements[crop]
            left, top = round(place.x * (width - place.side)), round(place.y * (height - place.side))
            window = np.s_[top : top + place.side, left : left + place.side]
            image[window], unknown[window] = self.references[crop].image, False
        return image, unknown

    @property
    def base(self) -> Base:
        """Return the base that it was trained on."""
        return self.model.base

    @property
    def resolution(self) -> int:
        """Return the side of the model's square windows, pixels."""
        return self.model.config.resolution

    @property
    def grey(self) -> bool:
        """Return whether the real photographs have no colour."""
        return bool(self.card["greyscale"])


def make_card(
    model: AnomalyDiffusionModel,
    pairs: Sequence[Pair],
    types: Sequence[int],
    placements: Sequence[Placement],
    result: TrainingResult,
    object_name: str,
    brightness: Range | None = None,
    *,
    normals: Sequence[NormalImage] = (),
) -> dict[str, Any]:
    """Make the adapter's card, which does not depend on when or where the training ran.

    Args:
        types: number of each pair's defect type.
        normals: good parts that it learned from.
        brightness: of the training request.
    """
    return {
        "format_version": FORMAT_VERSION,
        "method": NAME,
        "object": object_name,
        "defect": ", ".join(model.types),
        "types": list(model.types),
        "base": {"name": model.base.name, "sha256": model.base.digest, "license": model.base.card.get("license")},
        "config": model.config.as_dict(),
        "steps": result.steps,
        "kept_step": result.kept,
        "loss_curve": [list(point) for point in result.curve],
        "held_out": None if result.held_out is None else {"pair": result.held_out, "curve": result.held_out_curve},
        "data": [{**describe_pair(pair), "defect": model.types[kind]} for pair, kind in zip(pairs, types, strict=True)],
        "normals": [{"name": normal.name, "image_sha256": image_hash(normal.image)} for normal in normals],
        "greyscale": all(is_grey(pair.image) for pair in pairs),
        "brightness": None if brightness is None else list(brightness),
        "placements": [asdict(place) for place in placements],
        "software": {name: version(name) for name in ("pairforge", "torch", "diffusers", "peft", "transformers")},
    }


def save_adapter(folder: Path, adapter: AnomalyDiffusionAdapter, run: Mapping[str, Any] | None = None) -> None:
    """Write the adapter to a temporary folder and rename it; an existing folder is replaced.

    Args:
        folder: the adapter's folder; its parent must exist.
        run: the content of `run.json`.
    """
    model = adapter.model
    with atomic_folder(folder) as aside:
        for name, module in model.learned().items():
            save_file(contiguous(module), aside / f"{name}.safetensors")
        if model.config.fill_rank:
            lora = get_peft_model_state_dict(model.unet, adapter_name=FILL_ADAPTER)
            StableDiffusionPipeline.save_lora_weights(aside / FILL_ADAPTER, unet_lora_layers=lora)
        if adapter.mask_words is not None:
            save_file(contiguous(adapter.mask_words.embeddings), aside / MASK_FILE)
        (aside / "masks").mkdir()
        for number, real in enumerate(adapter.masks):
            Image.fromarray(real.mask).save(aside / "masks" / f"{number:03d}.png")
        references.write_pairs(aside / "reference", adapter.references)
        for name, content in (("run.json", run or {}), ("card.json", adapter.card)):
            (aside / name).write_text(to_json(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_adapter(folder: Path, base: Base) -> AnomalyDiffusionAdapter:
    """Load an adapter onto the base it was trained on.

    Raises:
        UsageError: if the base, the weights or the files are not as expected; names every difference.
    """
    card = read_card_on(folder, base.name, base.digest)
    model = build_model(base, AnomalyTrainingConfig(**card["config"]), card["types"])
    problems: list[str] = []
    for name, module in model.learned().items():
        load_module(module, folder / f"{name}.safetensors", problems)
    if model.config.fill_rank:
        tensors = under(read_weights(folder / FILL_ADAPTER / LORA_FILE, problems), "unet.")
        load_lora(model.unet, FILL_ADAPTER, tensors, f"{FILL_ADAPTER}/{LORA_FILE}", problems)
    words = new_mask_words(model) if model.config.mask_generator_steps else None
    if words is not None:
        load_module(words.embeddings, folder / MASK_FILE, problems)
        words.embeddings.eval().requires_grad_(False)
    masks = _read_masks(folder / "masks", card, problems)
    reals = references.read_pairs(folder / "reference", [place["name"] for place in card["placements"]], problems)
    if problems:
        raise UsageError(problems, f"The adapter {folder} is damaged or incomplete")
    model.networks().eval().requires_grad_(False)
    placements = [Placement(**place) for place in card["placements"]]
    return AnomalyDiffusionAdapter(model, card, masks, reals, placements, words)


def _read_masks(folder: Path, card: Mapping[str, Any], problems: list[str]) -> list[RealMask]:
    masks = []
    for number, entry in enumerate(card["data"]):
        try:
            with Image.open(folder / f"{number:03d}.png") as file:
                mask = np.asarray(file.convert("L")) > 127
        except OSError as error:
            problems.append(f"{folder.name}/{number:03d}: {error}")
            continue
        masks.append(RealMask(card["types"].index(entry["defect"]), mask))
    return masks
