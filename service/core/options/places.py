"""What a request that says where defects go cannot ask for at the same time, for the library and the API alike."""

from __future__ import annotations

from collections.abc import Collection, Mapping


def unmasked(pairs: Mapping[str, int], masks: Collection[str | None]) -> str:
    """Say which types pairs are wanted of that no given mask is for; nothing if all have one.

    Nothing is said where a mask is for a type that does not exist, which is the mistake then.

    Args:
        pairs: defect type → pairs that are wanted, of all types that the adapter learned.
        masks: the type that each mask is for; None for any.
    """
    if {*masks} - {None, *pairs}:
        return ""
    lacking = [name for name, count in pairs.items() if count and not {None, name} & {*masks}]
    return f"no mask is for {', '.join(lacking)}: give one, or ask for no pairs of it" if lacking else ""
