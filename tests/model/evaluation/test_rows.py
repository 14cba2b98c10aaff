"""Names of rows, and sources that say what they are."""

from __future__ import annotations

import pytest

from model.evaluation.profiles import COMPARED, PROFILES
from model.evaluation.rows import REAL, SOURCES, UNCHECKED, Row, parse_rows, without_verdict
from model.methods import METHODS
from service.core.errors import UsageError
from service.core.options.methods import METHOD_OPTIONS
from service.core.options.quality import QualityLimits


def test_a_row_is_real_pairs_a_source_or_both() -> None:
    assert parse_rows(["real", "perlin", "real+perlin"], SOURCES) == [
        Row("real", "", real=True),
        Row("perlin", "perlin", real=False),
        Row("real+perlin", "perlin", real=True),
    ]


def test_rows_keep_their_order_and_doubles_are_left_out() -> None:
    names = [row.name for row in parse_rows(["perlin", "real", "perlin", "bcm"], SOURCES)]
    assert names == ["perlin", "real", "bcm"]


@pytest.mark.parametrize("name", ["reel", "real+", "real+real", "real+reel", "real-perlin", "perlin+real", "", "REAL"])
def test_a_row_that_does_not_exist_is_refused_with_those_that_do(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_rows(["real", name], SOURCES)
    assert f"there is no row {name};" in str(refused.value)
    for known in [REAL, *SOURCES]:
        assert known in str(refused.value)


def test_every_unknown_row_is_named() -> None:
    with pytest.raises(UsageError, match="no row one, real\\+two;"):
        parse_rows(["one", "real", "real+two"], SOURCES)


def test_no_rows_are_refused() -> None:
    with pytest.raises(UsageError, match="at least one, such as real"):
        parse_rows([], SOURCES)


def test_titles_say_what_a_detector_sees() -> None:
    real, paste, both = parse_rows(["real", "copy-paste", "real+copy-paste"], SOURCES)
    assert real.title(SOURCES) == "real pairs only"
    assert paste.title(SOURCES) == "copy-paste with blending"
    assert both.title(SOURCES) == "real pairs + copy-paste with blending"


@pytest.mark.parametrize("rows", [COMPARED, *(profile.rows for profile in PROFILES.values())])
def test_every_profile_compares_rows_that_exist_and_ends_with_the_verdicts(rows: tuple[str, ...]) -> None:
    parsed = parse_rows(rows, SOURCES)
    assert parsed[0].name == REAL
    assert parsed[-1].real
    assert SOURCES[parsed[-1].source].method in {"anomalydiffusion", "dualanodiff"}


def test_the_options_of_every_source_are_options_of_its_method() -> None:
    for source in SOURCES.values():
        options = METHOD_OPTIONS[source.method]
        assert source.method in METHODS
        assert source.training.keys() <= options.of("training").keys()
        assert source.sampling.keys() <= options.of("sampling").keys()
        QualityLimits(**source.limits)


def test_only_the_method_itself_is_checked() -> None:
    checked = {name for name, source in SOURCES.items() if source.limits != UNCHECKED}
    assert checked == {
        *("dualanodiff", "no-saim", "bcm", "anomalydiffusion", "no-spatial", "no-reweighting", "pushed-alike"),
        *("no-composites", "no-detail", "learned-masks", "one-pass", "filled-twice"),
    }


def test_sources_that_share_an_adapter_would_train_it_alike() -> None:
    for source in SOURCES.values():
        if source.adapter:
            owner = SOURCES[source.adapter]
            assert (source.method, source.training) == (owner.method, owner.training)


@pytest.mark.parametrize(
    ("rows", "missing"),
    [
        (["real", "copy-paste", "perlin"], "real+perlin"),
        (["perlin"], "real and real+perlin"),
        (["real+perlin"], "real"),
        (["real"], "real+copy-paste"),
    ],
)
def test_rows_without_a_verdict_name_those_that_it_needs(rows: list[str], missing: str) -> None:
    said = without_verdict(rows)
    assert f"it also needs {missing}. " in said
    assert f"--rows {','.join([*rows, *missing.split(' and ')])} goes on" in said
