"""What is written is JSON, which has no NaN, and what is read is nothing else."""

from __future__ import annotations

import math

import pytest

from service.core.strict_json import from_json, parse, to_json, without_nan


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_never_written(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"loss": [1, number]})
    assert (
        to_json(without_nan({"loss": [1, number], "pair": (number, "x")})) == '{"loss": [1, null], "pair": [null, "x"]}'
    )


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_words_that_are_no_json_are_refused_and_those_of_old_records_are_null(word: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        parse(f'{{"loss": {word}}}')
    assert from_json(f'{{"loss": {word}}}') == {"loss": None}
