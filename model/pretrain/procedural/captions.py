"""What a picture is said to show."""

from __future__ import annotations

from model.pretrain.procedural.defects import DEFECTS as DEFECT_KINDS
from model.pretrain.procedural.noise import Rng
from model.pretrain.procedural.objects import OBJECTS
from model.pretrain.procedural.surfaces import SURFACES

CLASSES: tuple[str, ...] = (*SURFACES, *OBJECTS)
"""Names of every surface and object."""

DEFECTS: tuple[str, ...] = tuple(DEFECT_KINDS)
"""Names of every defect."""

_ADJECTIVES = {
    "scratch": "scratched",
    "crack": "cracked",
    "hole": "pierced",
    "blowhole": "porous",
    "dent": "dented",
    "stain": "stained",
    "chip": "chipped",
    "break": "broken",
    "missing piece": "incomplete",
    "bend": "bent",
    "particle": "contaminated",
    "fiber": "contaminated",
    "spot": "spotted",
    "fold": "creased",
    "burn": "burnt",
    "fracture": "fractured",
    "wear": "worn",
    "abrasion": "abraded",
    "discoloration": "discolored",
    "unevenness": "uneven",
    "open": "interrupted",
    "short": "shorted",
    "mouse bite": "bitten",
    "spur": "overplated",
    "pin hole": "perforated",
    "spurious copper": "contaminated",
}


def _an(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def describe(rng: Rng, name: str, defect: str) -> str:
    """A caption naming the part and its defect, in one of several forms."""
    adjective = _ADJECTIVES[defect]
    forms = (
        _an(f"{adjective} {name}"),
        f"{name} with {_an(defect)}",
        f"a photo of {name} with {_an(defect)}",
        f"a photo of {_an(f'{adjective} {name}')}",
        f"a close photo of {name} showing {_an(defect)}",
    )
    return str(rng.choice(forms))


def vocabulary() -> list[str]:
    """Every word a caption can hold, sorted."""
    words = {"a", "an", "with", "photo", "of", "close", "showing", *_ADJECTIVES.values()}
    words.update(word for name in (*CLASSES, *DEFECTS) for word in name.split())
    return sorted(words)
