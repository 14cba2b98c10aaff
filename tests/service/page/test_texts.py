"""The page's texts: in every language, and for all that the API describes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from service.api.page import describe_options
from service.api.problems import CODES
from service.core.failures import FAILURES
from service.core.settings import load_settings

PAGE = Path("service/page")
LANGUAGES = ("en", "de")


def texts(name: str) -> dict[str, str]:
    """Key → text of a file; a text is a string on a line of its own."""
    lines = re.findall(
        r"(?m)^ +(\"[^\"]+\"|\w+): (\".*\"),$", (PAGE / "texts" / f"{name}.js").read_text(encoding="utf-8")
    )
    found = {key.strip('"'): json.loads(text) for key, text in lines}
    assert len(found) == len(lines), "a key is there twice"
    return found


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


def test_every_text_is_in_every_language_with_the_same_values_filled_in() -> None:
    english, german = (texts(name) for name in LANGUAGES)
    assert set(english) == set(german)
    for key, text in english.items():
        assert placeholders(text) == placeholders(german[key]), key


def test_every_text_that_the_page_asks_for_exists_and_every_one_is_asked_for() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in [*PAGE.glob("*.js"), *PAGE.glob("views/*.js")])
    known = set(texts("en"))
    assert set(re.findall(r"\bt\(\"(\w+)\"", code)) <= known
    composed = set(re.findall(r"`([a-z]+_)\$\{", code))
    unused = {key for key in known if f'"{key}"' not in code and not any(key.startswith(each) for each in composed)}
    assert unused == set()


def test_every_refusal_and_failure_is_said_in_the_page_s_own_words() -> None:
    never_received = {"client_gone"}
    assert {f"problem_{code}" for code in {*CODES, *FAILURES} - never_received} <= set(texts("en"))


@pytest.mark.parametrize("kind", ["training", "sampling", "limits", "evaluation"])
def test_what_the_api_says_of_options_is_there_in_german(kind: str) -> None:
    described, german = describe_options(load_settings()), texts("de_options")
    if kind in described:
        options = described[kind]
    else:
        options = [option for method in described["methods"] for option in method[kind]]
    assert {
        option["name"] for option in options if not {option["name"], f"{kind}_{option['name']}"} & set(german)
    } == set()
    assert {method["name"] for method in described["methods"]} <= set(german)
