"""`pairforge bases`: lists the shipped bases, or verifies that one is complete."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from model.cli.checks import open_base
from model.cli.output import Output, duration
from model.diffusion.base import SHIPPED, base_digest, read_card, shipped_bases
from model.dualanodiff.config import resolve_config
from model.dualanodiff.model import build_model
from model.masks.networks import load_mask_networks
from service.core.options.methods import suited_method


def list_bases(output: Output) -> None:
    """Show name, size, hash, origin and recommended method of every shipped base."""
    folders = {name: SHIPPED / name for name in shipped_bases()}
    bases = [_facts(name, folder, base_digest(folder), read_card(folder)) for name, folder in folders.items()]
    text = "\n\n".join(_as_text(base) for base in bases) or (
        "this installation ships no bases: set --base to a folder or a hub id in diffusers' Stable Diffusion format"
    )
    output.result({"bases": bases}, text)


def verify_base(source: str, output: Output) -> None:
    """Load a base with all its extras, as training does.

    Raises:
        UsageError: if parts are missing or cannot be read; lists each.
    """
    base = open_base(source)
    load_mask_networks(base)
    model = build_model(base, resolve_config(base, {}), "object", "defect")
    parts = {"unet": base.unet, "vae": base.vae, "text_encoder": base.text_encoder}
    parts["interaction"] = model.denoiser.interaction
    numbers = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    extras = {
        "interaction": base.interaction is not None,
        "part network": (base.folder / "u2net" / "part.safetensors").is_file(),
        "object network": (base.folder / "u2net" / "object.safetensors").is_file(),
    }
    facts = {
        **_facts(source, base.folder, base.digest, base.card),
        "resolution": base.resolution,
        "factor": base.factor,
        "prediction_type": base.scheduler.get("prediction_type", "epsilon"),
        "parameters": numbers,
        "extras": extras,
        "complete": True,
    }
    lacking = ", ".join(name for name, there in extras.items() if not there)
    sizes = ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in numbers.items())
    output.result(
        facts,
        f"{_as_text(facts)}\n"
        f"  {base.resolution} pixels, {base.latent_channels} latent channels at 1/{base.factor}, "
        f"{facts['prediction_type']}; parameters: {sizes}\n"
        f"  complete, {f'without {lacking}' if lacking else 'with all extras'}",
    )


def _facts(name: str, folder: Path, digest: str, card: dict[str, Any]) -> dict[str, Any]:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "name": name,
        "folder": str(folder),
        "size_bytes": size,
        "sha256": digest,
        "method": suited_method(folder),
        "card": card,
    }


def _as_text(base: dict[str, Any]) -> str:
    card = base["card"]
    lines = [f"{base['name']}: {base['size_bytes'] / 1e6:.1f} MB, sha256 {base['sha256'][:12]}…", f"  {base['folder']}"]
    lines.append(f"  where there are good parts, --method {base['method']} suits it best")
    if "trained_on" in card:
        lines.append(f"  trained on {card['trained_on']}")
    if "images_seen_by_unet" in card:
        lines.append(
            f"  {card['images_seen_by_unet']:,} images seen by the U-Net; licence {card.get('license', 'unknown')}"
        )
    if "seconds" in card:
        lines.append(f"  made on {_machines(card['seconds'])}")
    return "\n".join(lines + [f"  {figure}" for figure in _figures(card.get("measured", {}))])


def _machines(seconds: dict[str, dict[str, float]]) -> str:
    """`a GPU (12:30), some CPU (1:05:00)` from stage → machine → seconds."""
    spent: Counter[str] = Counter()
    for machines in seconds.values():
        spent.update(machines)
    return ", ".join(f"{machine} ({duration(total)})" for machine, total in spent.most_common())


def _figures(measured: dict[str, Any]) -> list[str]:
    """Describe the figures of `model.pretrain.evaluate.measure_base`, one line for each kind of figure and picture."""
    lines = []
    for name, figures in measured.items():
        kind, _, pictures = name.rpartition("_")
        if kind == "reconstruction":
            lines.append(
                f"reconstruction of {figures['images']} {pictures} images: PSNR {figures['psnr']} dB, "
                f"SSIM {figures['ssim']}"
            )
        elif kind == "mask_iou":
            found = ", ".join(f"{method} {score}" for method, score in figures.items())
            lines.append(f"IoU of the masks found on {pictures} images: {found}")
        elif kind == "denoising":
            restored = ", ".join(f"{what.replace('_', ' at ')} {psnr} dB" for what, psnr in figures.items())
            lines.append(f"restored in one step from noise, {pictures} pairs: {restored}")
        elif name == "alignment":
            lines.append(
                f"|image - part| inside the masks of {figures['pairs']} samples: {figures['inside']} grey levels, "
                f"{figures['inside_shuffled']} with the images shuffled"
            )
        elif name == "acceptance_from_noise":
            share = f"{100 * figures['accepted']:.0f} % of {figures['candidates']}"
            lines.append(f"{share} samples from noise pass the quality checks")
    return lines
