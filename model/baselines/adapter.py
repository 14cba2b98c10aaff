"""Saves and loads adapters of baselines: folders without weights.

card.json     contents: base and its hash, data hashes, configuration, software
pairs/        the real pairs, whole, whose defects are copied
reference/    crops of the defects, which the quality checks compare with
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from model.adapter_card import FORMAT_VERSION, describe_pair, read_card_on
from model.data.placement import Placement
from model.data.references import read_pairs, write_pairs
from model.diffusion.base import Base
from model.types import Pair, is_grey
from service.core.atomic_write import atomic_folder
from service.core.errors import UsageError
from service.core.options.baselines import CollectionConfig
from service.core.strict_json import to_json
from service.core.uploads.reading import Range


@dataclass(slots=True)
class BaselineAdapter:
    """A loaded adapter of a baseline.

    Attributes:
        base: gives the resolution and the networks that find products; none of its weights draws anything.
        pairs: the real pairs, whole.
        references: crops of the real defects at their photographs' own scale.
        placements: positions of these crops.
    """

    base: Base
    config: CollectionConfig
    card: dict[str, Any]
    pairs: list[Pair]
    references: list[Pair]
    placements: list[Placement]

    @property
    def resolution(self) -> int:
        """Return the side of the square that the base sees, pixels."""
        return self.config.resolution

    def references_of(self, defect: str | None) -> list[Pair]:
        """Return all references."""
        return self.references

    @property
    def grey(self) -> bool:
        """Return whether the real photographs have no colour."""
        return bool(self.card["greyscale"])


def make_card(
    method: str,
    base: Base,
    config: CollectionConfig,
    pairs: Sequence[Pair],
    placements: Sequence[Placement],
    names: tuple[str, str],
    brightness: Range | None = None,
) -> dict[str, Any]:
    """Make the adapter's card, which does not depend on when or where it was made.

    Args:
        names: names of object and defect.
        brightness: of the training request.
    """
    return {
        "format_version": FORMAT_VERSION,
        "method": method,
        "object": names[0],
        "defect": names[1],
        "base": {"name": base.name, "sha256": base.digest, "license": base.card.get("license")},
        "config": config.as_dict(),
        "steps": 0,
        "kept_step": 0,
        "loss_curve": [],
        "held_out": None,
        "data": [describe_pair(pair) for pair in pairs],
        "normals": [],
        "greyscale": all(is_grey(pair.image) for pair in pairs),
        "brightness": None if brightness is None else list(brightness),
        "placements": [asdict(place) for place in placements],
        "software": {name: version(name) for name in ("pairforge", "numpy", "scipy")},
    }


def save_adapter(folder: Path, card: Mapping[str, Any], pairs: Sequence[Pair], references: Sequence[Pair]) -> None:
    """Write the adapter to a temporary folder and rename it; an existing folder is replaced."""
    with atomic_folder(folder) as aside:
        write_pairs(aside / "pairs", pairs)
        write_pairs(aside / "reference", references)
        (aside / "card.json").write_text(to_json(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_adapter(folder: Path, base: Base) -> BaselineAdapter:
    """Load an adapter onto the base it was made for.

    Raises:
        UsageError: if the base or the files are not as expected; names every difference.
    """
    card = read_card_on(folder, base.name, base.digest)
    problems: list[str] = []
    pairs = read_pairs(folder / "pairs", [entry["name"] for entry in card["data"]], problems)
    references = read_pairs(folder / "reference", [place["name"] for place in card["placements"]], problems)
    if problems:
        raise UsageError(problems, f"The adapter {folder} is damaged or incomplete")
    placements = [Placement(**place) for place in card["placements"]]
    return BaselineAdapter(base, CollectionConfig(**card["config"]), card, pairs, references, placements)
