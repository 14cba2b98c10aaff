"""Decides which candidates become part of the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from model.adapter_card import types_of
from model.data.crops import resize_image, resize_mask
from model.data.two_levels import find_two_levels
from model.diffusion.base import dtype_of
from model.generation.request import GenerationRequest
from model.masks.objects import Objects
from model.masks.u2net import for_inference
from model.method import Adapter
from model.methods import method_of
from model.quality.gate import QualityGate, RejectReason, Verdict
from model.runtime.timing import stage
from model.types import Candidate, MaskArray, Pair
from service.core.options.quality import QualityLimits

COPIES = frozenset({RejectReason.COPY_OF_REAL, RejectReason.COPY_OF_ACCEPTED})

CHOSEN = frozenset(
    {
        RejectReason.MASK_TOO_SMALL,
        RejectReason.MASK_TOO_LARGE,
        RejectReason.MASK_TOO_THIN,
        RejectReason.MASK_TOO_WIDE,
        RejectReason.BORDER_HUGGING,
    }
)
"""Reasons about size and place: of masks that the user gives, both are as they are wanted."""


class CandidateFilter:
    """Decides which candidates become part of the dataset, one by one in the order of their indices.

    Every defect type has limits of its own, measured on its real defects. Masks that the user gives are judged by what
    is drawn in them: not by size, place or shape.
    """

    def __init__(self, request: GenerationRequest) -> None:
        copies = COPIES if method_of(request.adapter).copies else frozenset()
        self._forgiven = copies | (CHOSEN if request.places.masks else frozenset())
        self._objects = None
        if request.object_net is not None and _keeps_to_products(request):
            net = for_inference(request.object_net, dtype_of(request.settings.precision))
            self._objects = Objects(net, request.normals)
        types: Sequence[str | None] = types_of(request.adapter.card)
        self._gates = {name: self._new_gate(request, name) for name in (types if len(types) > 1 else [None])}

    def _new_gate(self, request: GenerationRequest, defect: str | None) -> QualityGate:
        anchored = request.settings.anchored
        reals = gate_references(request.adapter, defect, anchored=anchored)
        products = [] if anchored else self._products(reals)
        return QualityGate(
            reals,
            _limits(request),
            normals=request.normals,
            real_objects=products,
            judges_shape=not request.places.masks,
        )

    def _products(self, reals: Sequence[Pair]) -> list[MaskArray | None]:
        """Find the product in each real pair's image."""
        if self._objects is None:
            return []
        return [self._objects.in_candidate(Candidate(0, 0, real.image, real.mask)) for real in reals]

    def verdict(self, candidate: Candidate) -> Verdict:
        """Check the next candidate; the measured values are added to its scores."""
        gate = self._gates[candidate.defect]
        with stage("check"):
            found = self._objects.in_candidate(candidate) if self._objects is not None else None
            verdict = gate.check(candidate, found)
        reasons = tuple(reason for reason in verdict.reasons if reason not in self._forgiven)
        verdict = replace(verdict, accepted=not reasons, reasons=reasons)
        candidate.scores.update(verdict.scores)
        if verdict.accepted:
            gate.accept(candidate)
        return verdict

    def remember(self, candidate: Candidate) -> None:
        """Remember a pair that was accepted earlier, without using its `part`, so that copies of it are found."""
        self._gates[candidate.defect].accept(candidate)


def _keeps_to_products(request: GenerationRequest) -> bool:
    """Return whether defects beside the product are faults.

    They are not where the user says where defects are to lie, nor on photographs of two levels, where no product is
    looked for: of a pattern such as a circuit's, a network takes the part that stands out for one.
    """
    if not request.settings.on_product or request.places.masks or request.places.allowed:
        return False
    anchored = request.settings.anchored
    return not anchored or find_two_levels(gate_references(request.adapter, anchored=anchored)) is None


def _limits(request: GenerationRequest) -> QualityLimits:
    """Return the limits, of which those of areas and widths leave room for the sizes that are asked for."""
    limits, (smaller, larger) = request.limits, request.settings.beyond
    return replace(
        limits,
        min_area_ratio=limits.min_area_ratio * smaller**2,
        max_area_ratio=limits.max_area_ratio * larger**2,
        min_width_ratio=limits.min_width_ratio * smaller,
        max_width_ratio=limits.max_width_ratio * larger,
    )


def gate_references(adapter: Adapter, defect: str | None = None, *, anchored: bool) -> list[Pair]:
    """Return a defect type's real crops at the candidates' scale: their own if anchored, or the model's resolution.

    Args:
        defect: None for an adapter of a single type.
    """
    reals = adapter.references_of(defect)
    if anchored:
        return reals
    side = adapter.resolution
    return [Pair(pair.name, resize_image(pair.image, side), resize_mask(pair.mask, side)) for pair in reals]
