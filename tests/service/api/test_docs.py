"""The documentation needs no other host, and leaves nothing undescribed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.api.problems import CODES
from service.core.failures import FAILURES
from service.core.settings import Settings
from service.main import create_app

ROOT = Path(__file__).resolve().parents[3]
ERRORS = ROOT / "docs" / "errors.md"


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


def listed_codes(heading: str) -> list[str]:
    """The first column of the table under a heading of docs/errors.md."""
    _, _, rest = ERRORS.read_text(encoding="utf-8").partition(f"## {heading}\n")
    return re.findall(r"^\| `(\w+)` \|", rest.partition("\n## ")[0], re.MULTILINE)


def test_all_error_codes_are_in_one_table_with_their_statuses(address: str) -> None:
    received = {code: status for code, (status, _) in CODES.items() if code != "client_gone"}
    assert listed_codes("Refused requests") == list(received)
    assert listed_codes("Failed work") == list(FAILURES)
    table, shown = ERRORS.read_text(encoding="utf-8"), httpx2.get(f"{address}/docs").text
    for code, status in received.items():
        assert f"| `{code}` | {status} |" in table
        assert f"<td><code>{code}</code></td><td>{status}</td>" in shown


def test_work_fails_with_no_other_codes() -> None:
    written = {
        code
        for folder, pattern, ending in (("worker", r'_fail\("(\w+)"', "py"), ("service", r"code = '(\w+)'", "lua"))
        for file in (ROOT / folder).rglob(f"*.{ending}")
        for code in re.findall(pattern, file.read_text(encoding="utf-8"))
    }
    assert written == FAILURES.keys()


def test_both_resources_answer_alike(client: httpx2.Client) -> None:
    for path in ("", "/events", "/cancel"):
        method = "POST" if path == "/cancel" else "GET"
        for kind in ("adapter", "job"):
            answer = client.request(method, f"/v1/{kind}s/{kind[:3].replace('ada', 'adp')}_{'0' * 26}{path}")
            assert (answer.status_code, answer.json()["code"]) == (404, f"{kind}_not_found")
