"""Writes captions for pictures."""

from __future__ import annotations

from enum import StrEnum

from model.dualanodiff.prompts import NO_DEFECT, RARE_DEFECT, RARE_OBJECT, nested_prompts
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


_GENERIC = ("anomaly", "defect", "flaw", "damage", "fault")
"""Words for any defect."""

_SYNONYMS = {
    "asphalt": ("road", "pavement"),
    "bearing": ("ball bearing",),
    "bottle": ("glass bottle",),
    "cast metal": ("casting", "iron", "metal"),
    "brushed metal": ("steel", "metal sheet", "metal"),
    "cardboard": ("packaging", "box"),
    "carpet": ("rug",),
    "ceramic tile": ("tile", "floor tile"),
    "circuit board": ("pcb", "board"),
    "concrete": ("wall", "cement"),
    "cookie": ("biscuit", "baked cookie"),
    "fabric": ("textile", "cloth"),
    "foam": ("sponge",),
    "leather": ("hide",),
    "magnet tile": ("magnetic tile", "tile", "ferrite magnet"),
    "metal plate": ("plate", "sheet"),
    "painted panel": ("panel", "car body"),
    "pill": ("medicine",),
    "plastic": ("plastic part", "moulding"),
    "polished steel": ("steel", "metal"),
    "printed circuit": ("pcb", "circuit board"),
    "rusty metal": ("metal", "steel"),
    "screw": ("bolt", "fastener"),
    "wire mesh": ("grid", "mesh"),
    "wood": ("timber", "board"),
    "blowhole": ("pore", "porosity", "cavity"),
    "break": ("breakage", "broken edge"),
    "burn": ("scorch mark", "burn mark"),
    "chip": ("chipping", "flaking"),
    "crack": ("fissure", "hairline crack", "split"),
    "dent": ("deformation", "bump"),
    "fiber": ("hair", "thread"),
    "fold": ("crease", "wrinkle"),
    "hole": ("pit", "puncture"),
    "missing piece": ("missing part",),
    "particle": ("foreign body", "contamination", "inclusion"),
    "scratch": ("scrape", "line", "score"),
    "spot": ("blot", "color"),
    "stain": ("discoloration", "contamination", "oil", "dirt"),
    "wear": ("worn area", "rough"),
}
"""Synonyms that users may choose; known to the text encoder, but rarely used in captions."""


_FORM_WORDS = ("a an with photo of close showing mask on good without no", "defect defective object part")
"""Words of the captions' forms, and some that users may need."""


class Shown(StrEnum):
    """What the image of a pair shows; the part of a good one is empty."""

    DEFECT = "defect"
    GOOD = "good"
    MASK = "mask"


def _an(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def describe(rng: Rng, name: str, defect: str, adjective: str | None = None) -> str:
    """Write a caption naming the part and its defect, in one of several forms; some need an adjective."""
    forms = [
        f"{name} with {_an(defect)}",
        f"{_an(name)} with {_an(defect)}",
        f"a photo of {name} with {_an(defect)}",
        f"a close photo of {name} showing {_an(defect)}",
    ]
    if adjective is not None:
        forms += [_an(f"{adjective} {name}"), f"a photo of {_an(f'{adjective} {name}')}"]
    return str(rng.choice(forms))


def caption_pair(rng: Rng, name: str, defect: str, shown: Shown) -> tuple[str, str]:
    """Write captions of the image and of its part, with the same word for the defect: a name, synonym or any word."""
    draw = rng.random(2)
    word, adjective = defect, _ADJECTIVES.get(defect)
    if draw[0] < 0.1:
        word, adjective = str(rng.choice(_GENERIC)), "defective"
    elif draw[0] < 0.3:
        word, adjective = str(rng.choice(_SYNONYMS.get(defect, (defect,)))), None
    thing = str(rng.choice(_SYNONYMS.get(name, (name,)))) if draw[1] < 0.2 else name
    if shown is Shown.MASK:
        masks = (f"a mask of {_an(word)}", f"mask of {_an(word)}", f"a mask of {_an(word)} on {_an(thing)}")
        return str(rng.choice(masks)), word
    if shown is Shown.GOOD:
        goods = (_an(thing), f"a photo of {_an(thing)}", f"a good {thing}", f"a photo of {thing} without defect")
        return str(rng.choice(goods)), NO_DEFECT
    return describe(rng, thing, word, adjective), word


def rare_captions(shown: Shown) -> tuple[str, str]:
    """Write captions like `caption_pair`, with the rare tokens in place of the names."""
    if shown is Shown.MASK:
        return f"a mask of {RARE_DEFECT}", RARE_DEFECT
    if shown is Shown.GOOD:
        return f"a {RARE_OBJECT}", NO_DEFECT
    return nested_prompts("", "", "rare")


def vocabulary() -> list[str]:
    """Return every word that a caption can contain, sorted."""
    synonyms = (word for words in _SYNONYMS.values() for word in words)
    phrases = (*_FORM_WORDS, *CLASSES, *DEFECTS, *_ADJECTIVES.values(), *_GENERIC, *_SYNONYMS, *synonyms)
    return sorted({word for phrase in phrases for word in phrase.split()})
