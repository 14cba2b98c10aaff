"""The documentation needs no other host, and leaves nothing undescribed."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest

from service.core.settings import Settings
from service.main import create_app


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def test_the_page_shows_every_operation_and_asks_no_other_host(address: str, document: dict[str, Any]) -> None:
    answer = httpx2.get(f"{address}/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in answer.text
    assert not re.search(r"(src|href)=.?(https?:)?//", answer.text)
    assert "<script" not in answer.text
    for schema in document["components"]["schemas"]:
        assert f'id="schema-{schema}"' in answer.text


def test_examples_quote_names_with_spaces_and_brackets(address: str) -> None:
    text = httpx2.get(f"{address}/docs").text
    assert "-F &#x27;images[]=@&quot;scratch_1.png&quot;&#x27;" in text
    assert "-d &#x27;{&quot;adapter_id&quot;" in text


def undescribed(document: dict[str, Any]) -> list[str]:
    found = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            found += [where] if not operation.get("description") else []
            found += [
                f"{where} {each['name']}" for each in operation.get("parameters", ()) if not each.get("description")
            ]
            for status, answer in operation["responses"].items():
                found += [f"{where} {status}"] if not answer.get("description") else []
                found += [
                    f"{where} {name}" for name, each in answer.get("headers", {}).items() if not each.get("description")
                ]
    for name, schema in document["components"]["schemas"].items():
        for field, each in schema.get("properties", {}).items():
            found += [f"{name}.{field}"] if not (each.get("description") or "$ref" in each) else []
    return found


def test_every_parameter_field_and_header_is_described(document: dict[str, Any]) -> None:
    assert undescribed(document) == []
