"""Turns a request into a dataset: generates accepted pairs, keeps them until complete, and writes them as a zip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from model.data.placement import NormalImage
from model.export.dataset import DatasetSummary, Provenance, check_formats, write_dataset
from model.generation.counts import Counts
from model.generation.generate import generate_pairs
from model.generation.pair_store import PairStore, store_beside
from model.generation.request import GenerationRequest
from model.generation.unfilled import explanations
from model.runtime.progress import Progress
from model.runtime.timing import stage
from model.types import Candidate
from service.core.errors import UsageError


def make_dataset(
    request: GenerationRequest, target: Path, *, counts: Counts | None = None, force: bool = False
) -> Iterator[Progress | DatasetSummary]:
    """Generate the accepted pairs and write them as a zip; yields progress, and finally the summary.

    Accepted pairs are kept in a folder beside `target` until the zip is complete. The same request resumes from there,
    with more attempts if needed, and gives the same bytes as an uninterrupted one.

    Args:
        counts: set to the counts at which the request stopped, and updated as candidates are checked.
        force: whether to delete the unfinished pairs of another request.

    Raises:
        UsageError: if a format does not exist, the folder holds pairs of another request, or the attempts are used up;
            the message then says why candidates were rejected.
    """
    check_formats(request.formats)
    counts = counts if counts is not None else Counts()
    store = store_beside(target)
    store.begin(request.identity(), counts, force=force)
    if counts.attempts:
        note = f"resuming after {counts.attempts} candidates"
        yield Progress("sample", counts.accepted, request.num_pairs, "pairs", note=note)
    candidates = generate_pairs(
        request,
        counts,
        resumed=store.pairs(counts.accepted),
        keep=store.add,
        on_rejected=lambda *_: store.record(counts),
    )
    with closing(candidates):
        for item in candidates:
            if isinstance(item, Candidate):
                store.record(counts)
            else:
                yield item
    if counts.accepted < request.num_pairs:
        raise _too_few(store, counts, request)
    summary = finish_dataset(request, target, store.pairs(request.num_pairs), counts)
    store.remove()
    yield summary


def finish_dataset(
    request: GenerationRequest,
    target: Path,
    pairs: Iterable[Candidate],
    counts: Counts,
    *,
    normals: Iterable[NormalImage] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    follows: Mapping[str, Any] | None = None,
) -> DatasetSummary:
    """Write the zip of a request; the same request and pairs give the same bytes.

    If there are fewer pairs than were asked for, the dataset says why.

    Args:
        pairs: the accepted pairs in order; iterated once.
        counts: the counts of the candidates.
        normals: stored for the formats that need them, iterated once; by default the request's own.
        evaluation: what the pairs are worth on held-out photographs, as JSON; None where that was not asked for.
        follows: which datasets the pairs go on after, as JSON; None for most.

    Raises:
        UsageError: if a format does not exist.
    """
    adapter = request.adapter
    provenance = Provenance(
        object_name=str(adapter.card["object"]),
        defect_name=str(adapter.card["defect"]),
        request=request.described(),
        adapter_card=adapter.card,
        base_hash=adapter.base.digest,
        base_license=adapter.base.card.get("license"),
        counts=counts.as_dict(),
        evaluation=evaluation,
        follows=follows,
        partial=shortfall(counts, request) if counts.accepted < request.num_pairs else None,
    )
    stored = (normals if normals is not None else request.normals) if request.formats else ()
    with stage("zip"):
        return write_dataset(
            target,
            pairs,
            provenance,
            formats=request.formats,
            reals=adapter.references,
            normals=((normal.name, normal.image) for normal in stored),
        )


def shortfall(counts: Counts, request: GenerationRequest) -> str:
    """Describe how many pairs are missing, in which given masks, why candidates were rejected, and what helps."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.rejected.most_common()) or "none"
    types = "".join(f", {name} {count}" for name, count in sorted(counts.defects.items()))
    made = f" ({types[2:]})" if types else ""
    message = (
        f"only {counts.accepted} of {request.num_pairs} pairs{made} passed the quality checks in {counts.attempts} "
        f"attempts (rejected: {reasons})"
    )
    return "; ".join([message, *explanations(counts, request)])


def _too_few(store: PairStore, counts: Counts, request: GenerationRequest) -> UsageError:
    """Explain why there are too few pairs; accepted ones are kept for the same request with more attempts."""
    message = shortfall(counts, request)
    if not counts.accepted:
        store.remove()
        return UsageError(f"{message}; allow more attempts, loosen the limits, or train longer")
    return UsageError(
        f"{message}; accepted pairs are kept in {store.folder}: repeat the request with max-attempts above "
        f"{counts.reached} to continue with them, start over with looser limits, or train longer"
    )
