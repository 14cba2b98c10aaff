"""The API's documentation as one page without scripts, made of the OpenAPI document; it needs no other host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from fastapi import FastAPI, Request, Response

from service.api.problems import CODES
from service.core.failures import FAILURES
from service.core.strict_json import to_json

_STYLE = """
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{font:14px/1.4 ui-monospace,monospace}pre{overflow:auto;padding:.7rem;border:1px solid #8886;border-radius:4px}
table{border-collapse:collapse;width:100%;margin:.5rem 0}td,th{text-align:left;vertical-align:top;padding:.25rem .5rem;
border-bottom:1px solid #8884}section{border-top:2px solid #8886;margin-top:2rem}h3 code{font-size:1rem}nav li{margin:0}
"""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

Json = Mapping[str, Any]


def serve_docs(app: FastAPI) -> None:
    """Answer `/docs`."""

    @app.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
    def get_docs(request: Request) -> Response:
        base = str(request.base_url).rstrip("/")
        headers = {"Content-Security-Policy": _POLICY}
        return Response(page(app.openapi(), base), headers=headers, media_type="text/html; charset=utf-8")


def page(document: Json, base: str) -> str:
    """Render an OpenAPI document as HTML.

    Args:
        base: address of the API, for the examples.
    """
    return "".join(_page(document, base))


def _page(document: Json, base: str) -> Iterator[str]:
    title = escape(document["info"]["title"])
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style><h1>{title}</h1>'
    yield f"<p>{_text(document['info'].get('description', ''))}</p>"
    yield '<p>The same for programs: <a href="/openapi.json">openapi.json</a>.</p><nav><ul>'
    yield '<li><a href="#errors">Error codes</a></li>'
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    for method, path, operation in operations:
        name = operation["operationId"]
        yield f'<li><a href="#{name}"><code>{method} {escape(path)}</code></a> {_text(_summary(operation))}</li>'
    yield "</ul></nav>"
    for method, path, operation in operations:
        yield from _operation(document, method, path, operation, base)
    yield from _errors()
    yield "<section><h2>Schemas</h2>"
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield f'<h3 id="schema-{name}"><code>{name}</code></h3><p>{_text(schema.get("description", ""))}</p>'
        yield from _properties(schema)
    yield "</section></html>"


def _errors() -> Iterator[str]:
    yield '<section id="errors"><h2>Error codes</h2><p>In <code>code</code> of a refused request:</p>'
    refused = [(f"<code>{code}</code>", str(status), escape(title)) for code, (status, title) in CODES.items()]
    yield _table(("Code", "Status", "When"), refused)
    yield "<p>In <code>error.code</code> of an adapter or a job that has failed:</p>"
    yield _table(("Code", "When"), [(f"<code>{code}</code>", escape(text)) for code, text in FAILURES.items()])
    yield "</section>"


def _operation(document: Json, method: str, path: str, operation: Json, base: str) -> Iterator[str]:
    yield f'<section id="{operation["operationId"]}"><h2><code>{method} {escape(path)}</code></h2>'
    yield f"<p>{_text(operation.get('description', ''))}</p>"
    rows = [
        (f"<code>{escape(each['name'])}</code>", each["in"], _type(each["schema"]), _text(each.get("description", "")))
        for each in operation.get("parameters", ())
    ]
    if rows:
        yield _table(("Parameter", "In", "Type", "Meaning"), rows)
    example = None
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<h3>Body: <code>{media_type}</code></h3>"
        schema = content["schema"]
        named = schema.get("$ref", "").rpartition("/")[2]
        yield from _properties(document["components"]["schemas"][named] if named else schema)
        examples: list[Json] = list(content.get("examples", {}).values())
        example = media_type, examples[0]["value"] if examples else None
    yield f"<pre>{escape(_curl(method, path, base, operation, example))}</pre>"
    yield _table(
        ("Status", "Answer", "Headers"),
        [
            (
                f"<code>{status}</code>",
                _answer(answer),
                ", ".join(f"<code>{name}</code>" for name in answer.get("headers", {})),
            )
            for status, answer in operation["responses"].items()
        ],
    )
    yield "</section>"


def _curl(method: str, path: str, base: str, operation: Json, example: tuple[str, Any] | None) -> str:
    """An example for any version of curl; quotes keep spaces and brackets of names as they are."""
    lines = [f"curl -X {method} '{base}{path}'" if method != "GET" else f"curl '{base}{path}'"]
    if operation.get("security"):
        lines.append("-H 'Authorization: Bearer YOUR_KEY'")
    if example is not None and example[1] is not None:
        media_type, value = example
        if media_type == "application/json":
            lines += [f"-H 'Content-Type: {media_type}'", f"-d '{to_json(value)}'"]
        else:
            for name, given in value.items():
                for each in given if isinstance(given, list) else [given]:
                    lines.append(f"-F '{name}=@\"{each}\"'" if name.endswith("[]") else f"-F '{name}={each}'")
    return " \\\n  ".join(lines)


def _properties(schema: Json) -> Iterator[str]:
    if "enum" in schema:
        yield f"<p>One of {', '.join(f'<code>{escape(str(each))}</code>' for each in schema['enum'])}.</p>"
    required = set(schema.get("required", ()))
    rows = [
        (
            f"<code>{escape(name)}</code>{' (required)' if name in required else ''}",
            _type(each),
            _text(each.get("description", "")),
        )
        for name, each in schema.get("properties", {}).items()
    ]
    if rows:
        yield _table(("Field", "Type", "Meaning"), rows)


def _type(schema: Json) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#schema-{name}">{name}</a>'
    if choices := schema.get("anyOf") or schema.get("allOf") or schema.get("oneOf"):
        return " or ".join(_type(each) for each in choices)
    if "enum" in schema or "const" in schema:
        return ", ".join(f"<code>{escape(str(each))}</code>" for each in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    limits = [
        f"{word} {schema[name]}"
        for name, word in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("maxLength", "up to"),
        )
        if name in schema
    ]
    return escape(" ".join([str(schema.get("type", "any")), *limits]))


def _answer(answer: Json) -> str:
    kinds = [_type(content["schema"]) for content in answer.get("content", {}).values() if content.get("schema")]
    return " ".join([_text(answer.get("description", "")), *kinds])


def _summary(operation: Json) -> str:
    return str(operation.get("description", "")).partition("\n\n")[0].replace("\n", " ")


def _text(text: str) -> str:
    """Escape a text, whose `code` is in backticks and whose paragraphs are apart."""
    parts = escape(text.strip()).split("`")
    marked = "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))
    return marked.replace("\n\n", "<br><br>")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{body}</table>"
