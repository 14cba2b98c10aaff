"""What may be asked for, and that it is what the library takes."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from model.diffusion.schedulers import SCHEDULERS
from model.evaluation.profiles import PROFILES
from model.export.dataset import FORMATS
from service.core.object_keys import Kind, kind_of, new_id
from service.core.object_keys import prefix as prefix_of
from service.core.options.common import MaskMethod, Scheduler
from service.core.options.evaluation import EvaluationOptions, ProfileName
from service.core.options.methods import METHOD_OPTIONS, offered
from service.core.options.quality import QualityLimits
from service.core.requests import AdapterRequest, JobRequest, QualityOptions, TrainingOptions

ADAPTER = "adp_01m8gm5jbqnvkq5g0tyggqcsad"


def names(config: type) -> set[str]:
    return {field.name for field in fields(config)}


def job(**changes: Any) -> JobRequest:
    return JobRequest.model_validate({"adapter_id": ADAPTER, "num_pairs": 4, **changes})


def refused(build: Any, **values: Any) -> set[tuple[int | str, ...]]:
    with pytest.raises(ValidationError) as caught:
        build(**values)
    return {problem["loc"] for problem in caught.value.errors()}


def test_options_are_the_librarys() -> None:
    assert set(TrainingOptions.model_fields) == set(offered("training"))
    assert set(QualityOptions.model_fields) == names(QualityLimits)
    assert set(JobRequest.model_fields) - set(offered("sampling")) == {
        *("adapter_id", "num_pairs", "defects", "formats", "limits", "max_attempts"),
        *("placements", "allowed", "forbidden", "evaluation", "metadata", "webhook"),
    }
    assert set(offered("sampling")) <= set(JobRequest.model_fields)


def test_every_profile_of_an_evaluation_may_be_asked_for_by_name() -> None:
    for name in PROFILES:
        asked = job(evaluation={"profile": name, "seeds": 2}).model_dump(mode="json")["evaluation"]
        assert asked == {"profile": name, "seeds": 2}
    assert get_args(ProfileName) == tuple(PROFILES)
    assert job(evaluation={}).evaluation == EvaluationOptions("quick", 3)
    for wrong in ({"profile": "long"}, {"seeds": 0}, {"seeds": 11}, {"rows": ["real"]}):
        assert refused(job, evaluation=wrong) == {("evaluation", *wrong)}


def test_the_librarys_defaults_may_be_asked_for() -> None:
    for options in METHOD_OPTIONS.values():
        TrainingOptions.model_validate(asdict(options.training()))
        job(**asdict(options.sampling()))
    QualityOptions.model_validate({name: getattr(QualityLimits(), name) for name in names(QualityLimits)})


def test_every_choice_of_the_library_may_be_asked_for() -> None:
    assert set(get_args(Scheduler)) == {"dpmsolver++", *SCHEDULERS}
    for scheduler in get_args(Scheduler):
        job(scheduler=scheduler)
    for method in MaskMethod:
        job(mask_method=method.value)
    assert job(formats=list(FORMATS)).formats == FORMATS


def test_the_seed_is_always_filled_in() -> None:
    assert len({job().seed for _ in range(20)}) == 20
    assert job(seed=None).seed >= 0
    assert TrainingOptions.model_validate({"seed": None}).seed >= 0
    assert job(seed=7).seed == 7
    assert AdapterRequest(name="tile").training.seed >= 0


def test_what_was_not_chosen_stays_open() -> None:
    chosen = job(steps=5).model_dump(exclude={"adapter_id", "num_pairs", "seed", "formats", "limits", "metadata"})
    assert {name: value for name, value in chosen.items() if value is not None} == {"steps": 5}


def test_every_impossible_value_is_named() -> None:
    assert refused(job, num_pairs=0, strength=0, guidance_scale=float("nan"), blend_from=1.5, formats=["zip"]) == {
        *(("num_pairs",), ("strength",), ("guidance_scale",), ("blend_from",), ("formats", 0))
    }
    assert refused(TrainingOptions, steps=-1, rank=0, lr=0, lora_targets="none", seed=-1, mask_steps=-1) == {
        *(("steps",), ("rank",), ("lr",), ("lora_targets",), ("seed",), ("mask_steps",))
    }
    assert refused(TrainingOptions, composites=-1, real_share=1.5, prior_share=-0.1) == {
        *(("composites",), ("real_share",), ("prior_share",))
    }
    assert refused(job, colour="red", limits={"ring": 0, "smell": 1}) == {
        *(("colour",), ("limits", "ring"), ("limits", "smell"))
    }


def test_fewer_attempts_than_pairs_are_refused_naming_both() -> None:
    with pytest.raises(ValidationError) as caught:
        job(num_pairs=10, max_attempts=3)
    (problem,) = caught.value.errors()
    assert problem["loc"] == ("max_attempts",)
    assert problem["msg"].startswith("3 attempts cannot yield 10 pairs")
    assert job(num_pairs=3, max_attempts=3).max_attempts == 3
    assert refused(job, num_pairs=0, max_attempts=3) == {("num_pairs",)}


@pytest.mark.parametrize("name", ["", " ", "x" * 81, "a\nb", "a\x00"])
def test_names_are_short_and_printable(name: str) -> None:
    assert refused(AdapterRequest, name=name) == {("name",)}


@pytest.mark.parametrize("base", ["/etc", "../mini", "a/b", "Mini", ""])
def test_a_base_is_named_not_pointed_at(base: str) -> None:
    assert refused(AdapterRequest, name="tile", base=base) == {("base",)}


def test_ids_tell_their_kind_and_sort_by_time() -> None:
    ids = [new_id(Kind.JOB) for _ in range(100)]
    stamps = [record[:14] for record in ids]  # the milliseconds
    assert stamps == sorted(stamps)
    assert len(set(ids)) == 100
    assert (kind_of(ids[0]), kind_of(ADAPTER)) == (Kind.JOB, Kind.ADAPTER)
    assert (prefix_of(ids[0]), prefix_of(ADAPTER)) == (f"jobs/{ids[0]}/", f"adapters/{ADAPTER}/")


@pytest.mark.parametrize("text", ["", "job_", "job_x/../y", ADAPTER + "/", ADAPTER.upper(), ADAPTER + "\n"])
def test_what_is_no_id_has_no_kind_and_no_objects(text: str) -> None:
    assert kind_of(text) is None
    with pytest.raises(ValueError, match="not the id"):
        prefix_of(text)


def test_a_preset_is_a_field_of_both_requests() -> None:
    assert TrainingOptions.model_validate({"preset": "paper"}).model_dump(exclude_none=True)["preset"] == "paper"
    assert job(preset="paper").model_dump(exclude_none=True)["preset"] == "paper"
    assert refused(job, preset="moon") == refused(TrainingOptions, preset="moon") == {("preset",)}


def test_pairs_by_type_add_up() -> None:
    adapter = "adp_01k0000000000000000000000a"
    typed = JobRequest.model_validate({"adapter_id": adapter, "defects": {"crack": 3, "break": 2}})
    assert typed.num_pairs == 5
    with pytest.raises(ValidationError, match="they are 3 pairs together, and num_pairs is 4: leave num_pairs out"):
        JobRequest.model_validate({"adapter_id": adapter, "num_pairs": 4, "defects": {"crack": 3}})
    for wrong in ({"crack": 0}, {"crack": 1.5}, {"crack": "3"}, {"": 3}, {}):
        with pytest.raises(ValidationError):
            JobRequest.model_validate({"adapter_id": adapter, "defects": wrong})
    assert "num_pairs" not in JobRequest.model_json_schema()["required"]
