"""One repetition of an evaluation: every row's detector with one seed, tested on the held-out photographs."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from model.evaluation.classification import Classifier, Groups, balanced_accuracy, train_classifier
from model.evaluation.data import EvaluationData
from model.evaluation.fidelity import measure_fidelity, nearest_reals
from model.evaluation.metrics import measure, precision_recall
from model.evaluation.published import PublishedWeights, measure_published
from model.evaluation.rows import Row, Source
from model.evaluation.segmentation import Example, UNet, image_score, predict, prepare_example, train_detector
from model.evaluation.sources import MadePairs, Shot, Studio
from model.runtime.progress import Meter, Progress
from model.runtime.seeding import pair_seed
from model.types import Candidate, Pair
from service.core.atomic_write import write_text
from service.core.errors import UsageError
from service.core.strict_json import to_json

PairsByType = Mapping[str, MadePairs]


@dataclass(frozen=True)
class Trial:
    """All rows with one seed.

    Attributes:
        sources: by the names that rows use.
        given: pairs that exist already: source → defect type → pairs.
        published: networks of the published measures of pictures, if the user named them.
        command: kept with the numbers that it measures.
    """

    data: EvaluationData
    object_name: str
    sources: Mapping[str, Source]
    given: Mapping[str, PairsByType]
    studio: Studio
    published: PublishedWeights | None = None
    command: str = ""

    def path(self, row: Row) -> Path:
        """Return the file of a row's numbers."""
        return self.studio.folder / "rows" / f"{row.name}.json"

    def run(self, row: Row) -> Generator[Progress, None, None]:
        """Write a row's numbers, unless they are there.

        A source that cannot be used is noted with the reason, and tried again the next time.
        """
        path = self.path(row)
        if self.is_measured(row):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        numbers: dict[str, Any] = {"seed": self.studio.seed, "made_of": self.made_of(row), "command": self.command}
        try:
            made = (yield from self.made(row.source)) if row.source else {}
            numbers |= yield from self._measured(row, made)
        except UsageError as error:
            numbers["skipped"] = str(error)
        write_text(path, to_json(numbers))

    def made_of(self, row: Row) -> dict[str, Any]:
        """Return what decides the generated pairs of a row beside what all rows share, as JSON; empty without any."""
        if not row.source:
            return {}
        if row.source in self.given:
            return {"given": self._digests[row.source]}
        source = self.sources[row.source]
        declared = {"source": source.as_dict()}
        return declared | ({"adapter": self.sources[source.adapter].as_dict()} if source.adapter else {})

    @cached_property
    def _digests(self) -> dict[str, dict[str, str]]:
        """The hashes of all given pairs: source → defect type → hash."""
        return {
            name: {defect: made.digest() for defect, made in by_type.items()} for name, by_type in self.given.items()
        }

    def is_foreign(self, row: Row) -> bool:
        """Return whether there are numbers of a row that are of other pairs."""
        return self.is_measured(row) and self.numbers(row).get("made_of") != self.made_of(row)

    def forget(self, row: Row) -> None:
        """Delete a row's numbers, and the pairs and adapters that were made for it."""
        self.path(row).unlink()
        if row.source and row.source not in self.given:
            self.studio.forget(row.source, self.sources[row.source])

    def numbers(self, row: Row) -> dict[str, Any]:
        """Read a row's numbers, which are there."""
        return dict(json.loads(self.path(row).read_text(encoding="utf-8")))

    def nearest(self, row: Row, defect: str, made: MadePairs) -> list[int]:
        """Return the position of the real defect that each pair is most like, from a row's numbers if they tell it."""
        known: list[int] | None = self.numbers(row).get("fidelity", {}).get(defect, {}).get("nearest_index")
        return nearest_reals(self.data.defects[defect].train, made.pairs) if known is None else known

    def is_measured(self, row: Row) -> bool:
        """Return whether there are numbers of a row."""
        return self.path(row).is_file() and "metrics" in self.numbers(row)

    def made(self, name: str) -> Generator[Progress, None, PairsByType]:
        """Return a source's pairs by defect type; those that are not on disk yet are made.

        Raises:
            UsageError: the source cannot be used on these photographs; says why.
        """
        if name in self.given:
            return self.given[name]
        made: dict[str, MadePairs] = {}
        for defect, split in self.data.defects.items():
            shot = Shot(self.object_name, defect, split.train, self.data.normals_train)
            made[defect] = yield from self.studio.make(name, self.sources[name], shot)
        if not any(each.pairs for each in made.values()):
            raise UsageError(f"none of {name}'s candidates was accepted")
        return made

    def _measured(self, row: Row, made: PairsByType) -> Generator[Progress, None, dict[str, Any]]:
        real = {defect: list(split.train) if row.real else [] for defect, split in self.data.defects.items()}
        generated = {defect: [_pair(each) for each in one.pairs] for defect, one in made.items()}
        began, tested = time.monotonic(), []
        for turn in range(self.studio.profile.detectors):
            detector = yield from self._detector([real, generated], turn)
            tested.append((yield from self._tested(detector)))
        seconds = {"detector": time.monotonic() - began}
        for one in made.values():
            for stage, spent in one.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
        numbers = averaged(tested)
        if len(self.data.defects) > 1:
            numbers["metrics"]["accuracy"] = yield from self._accuracy(
                {defect: [pairs, generated.get(defect, [])] for defect, pairs in real.items()}
            )
        if made:
            numbers["counts"] = {defect: one.counts for defect, one in made.items()}
            numbers["without_pairs"] = [defect for defect in real if not generated.get(defect)]
        if made and not row.real:
            numbers["fidelity"] = self._fidelity(made)
        return numbers | {"seconds": {stage: round(spent, 1) for stage, spent in seconds.items()}}

    def _detector(self, groups: Sequence[Mapping[str, Sequence[Pair]]], turn: int) -> Generator[Progress, None, UNet]:
        profile, studio = self.studio.profile, self.studio
        examples = [
            [prepare_example(pair.image, pair.mask, profile) for pairs in group.values() for pair in pairs]
            for group in groups
        ]
        shown = [group for group in examples if group]
        seed = pair_seed(studio.seed, turn)
        return (yield from train_detector(shown, self._good, profile, seed, studio.base.device))

    @cached_property
    def _good(self) -> list[Example]:
        return [prepare_example(normal.image, None, self.studio.profile) for normal in self.data.normals_train]

    @cached_property
    def _held_out(self) -> list[tuple[str, Example]]:
        """The held-out photographs, each with its defect type, empty for good parts."""
        profile = self.studio.profile
        defective = [
            (defect, prepare_example(pair.image, pair.mask, profile))
            for defect, split in self.data.defects.items()
            for pair in split.test
        ]
        return defective + [("", prepare_example(normal.image, None, profile)) for normal in self.data.normals_test]

    def _tested(self, detector: UNet) -> Generator[Progress, None, dict[str, Any]]:
        """Measure a detector on all held-out photographs, and for each defect type on its own and the good parts."""
        held_out = self._held_out
        meter = Meter("test", len(held_out), "photographs")
        maps = []
        for number, found in enumerate(predict(detector, [example.image for _, example in held_out]), 1):
            maps.append(found)
            if number % 20 == 0 or number == len(held_out):
                yield meter.report(number)
        masks = [example.mask for _, example in held_out]
        scores, labels = [image_score(each) for each in maps], [bool(defect) for defect, _ in held_out]

        def measured(wanted: set[str]) -> dict[str, float | None]:
            chosen = [number for number, (defect, _) in enumerate(held_out) if defect in wanted]
            return measure(
                [maps[number] for number in chosen],
                [masks[number] for number in chosen],
                [scores[number] for number in chosen],
                [labels[number] for number in chosen],
            )

        return {
            "metrics": measured({"", *self.data.defects}),
            "by_type": {defect: measured({"", defect}) for defect in self.data.defects},
            "curve": precision_recall(maps, masks),
        }

    def _accuracy(self, groups: Mapping[str, Groups]) -> Generator[Progress, None, float | None]:
        """Measure how often a network tells the held-out defects' types apart; None where a type has no pairs."""
        if not all(any(each) for each in groups.values()):
            return None
        settings = replace(self.studio.profile.classifier, seed=self.studio.seed)
        held_out = {defect: split.held_out_parts for defect, split in self.data.defects.items()}
        for item in train_classifier(groups, settings, self.studio.base.device):
            if isinstance(item, Classifier):
                return balanced_accuracy(item, held_out)
            yield item
        raise AssertionError("a training ends with its classifier")

    def _fidelity(self, made: PairsByType) -> dict[str, Any]:
        normals = {normal.name: normal.image for normal in self.data.normals_train}
        measured = {}
        for defect, one in made.items():
            if one.pairs:
                reals = self.data.defects[defect].train
                measured[defect] = measure_fidelity(reals, one.pairs, normals).as_dict()
                if self.published is not None:
                    measured[defect]["published"] = measure_published(self.published, reals, one.pairs)
        return measured


def averaged(tested: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average what several detectors of the same pairs reached, and keep what each did.

    A metric that one of them lacks is None; all are tested on the same photographs, so that all lack it.
    """

    def mean(numbers: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
        columns = {name: [each[name] for each in numbers] for name in numbers[0]}
        return {name: None if None in values else fmean(values) for name, values in columns.items()}  # type: ignore[arg-type]

    first = tested[0]
    curves = [each["curve"] for each in tested]
    return {
        "metrics": mean([each["metrics"] for each in tested]),
        "by_type": {defect: mean([each["by_type"][defect] for each in tested]) for defect in first["by_type"]},
        "curve": {axis: np.mean([each[axis] for each in curves], axis=0).tolist() for axis in first["curve"]},
        "detectors": [each["metrics"] for each in tested],
    }


def _pair(candidate: Candidate) -> Pair:
    return Pair(f"{candidate.index:06d}", candidate.image, candidate.mask)
