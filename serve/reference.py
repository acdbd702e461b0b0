"""The interface's reference at `/docs`: a page of the application's own OpenAPI description, without scripts."""

import base64
import hashlib
import importlib.resources
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from fastapi import FastAPI, Request, Response

_STYLE = "page/page.css"
_METHODS = ("get", "post", "put", "delete")
_SAYS_NOTHING = "Successful Response"
"""FastAPI's description of an answer that has none."""


def add_reference(app: FastAPI) -> None:
    """Let the application describe itself; whatever is added to it later stands there too."""
    style = (importlib.resources.files("serve") / _STYLE).read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    headers = {
        "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{digest}'; img-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }

    async def docs(request: Request) -> Response:
        text = render(app.openapi(), request.scope.get("root_path", ""), style)
        return Response(text, 200, headers, "text/html; charset=utf-8")

    app.add_api_route("/docs", docs, methods=["GET", "HEAD"], include_in_schema=False)


def render(description: Mapping[str, Any], prefix: str, style: str) -> str:
    """The page.

    Args:
        description: an OpenAPI document.
        prefix: what stands before its paths where the application is reached.
        style: the page's CSS.
    """
    about = description["info"]
    operations = [
        _operation(prefix + path, method, operations[method])
        for path, operations in description["paths"].items()
        for method in _METHODS
        if method in operations
    ]
    schemas = [
        _schema(name, schema) for name, schema in sorted(description.get("components", {}).get("schemas", {}).items())
    ]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        '<meta name=color-scheme content="light dark"><link rel=icon href=page/icon.svg>'
        f"<title>{escape(about['title'])}: reference</title><style>{style}</style>"
        f"<main class=reference><h1>{escape(about['title'])} {escape(about['version'])}</h1>"
        f"<p>{_words(about.get('description', ''))} For generators there is <a href=openapi.json>openapi.json</a>.</p>"
        f"{''.join(operations)}<h2 id=bodies>What is in the bodies</h2>{''.join(schemas)}</main></html>"
    )


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    asked = [
        (f"<code>{escape(found['name'])}</code>", f"in the {found['in']}", _type(found["schema"]), _about(found))
        for found in operation.get("parameters", ())
    ]
    body = operation.get("requestBody", {})
    kinds_of: dict[str, list[str]] = {}
    for kind, content in body.get("content", {}).items():
        kinds_of.setdefault(_type(content.get("schema", {})), []).append(f"<code>{escape(kind)}</code>")
    sent = [("<br>".join(kinds), "as the body", schema, _about(body)) for schema, kinds in kinds_of.items()]
    answers = [
        (f"<b>{escape(status)}</b>", kinds, _words(answer["description"].replace(_SAYS_NOTHING, "")))
        for status, answer in operation["responses"].items()
        for kinds in ["<br>".join(_content(answer.get("content", {})))]
    ]
    return (
        f'<section class=box><h2><span class="badge method">{method.upper()}</span> <code>{escape(path)}</code></h2>'
        f"<p>{_words(operation.get('description', ''))}</p>"
        f"{_table([*asked, *sent], 'Asked')}{_table(answers, 'Answered')}</section>"
    )


def _content(content: Mapping[str, Any]) -> Iterator[str]:
    for kind, found in content.items():
        schema = found.get("schema")
        yield f"<code>{escape(kind)}</code>{f' {_type(schema)}' if schema else ''}"


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        (f"<code>{escape(field)}</code>", _type(found) + ("" if field in required else ", optional"), _about(found))
        for field, found in schema.get("properties", {}).items()
    ]
    table = _table(rows) if rows else f"<p>{_type(schema)}</p>"
    return f'<section class=box id="{escape(name)}"><h2>{escape(name)}</h2><p>{_about(schema)}</p>{table}</section>'


def _type(schema: Mapping[str, Any]) -> str:
    """What a value may be, as HTML."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[several]))
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        items = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of {_type(items)}"
    if "properties" in schema:  # a form
        return "<br>".join(
            f"<code>{escape(name)}</code>: {_type(found)}" for name, found in schema["properties"].items()
        )
    if isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_type(schema['additionalProperties'])}"
    return escape(schema.get("format") or schema.get("type") or "anything")


def _about(found: Mapping[str, Any]) -> str:
    return _words(found.get("description", ""))


def _words(text: str) -> str:
    """A text as HTML, with what stands in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _table(rows: Sequence[Sequence[str]], title: str = "") -> str:
    """A table of cells that are HTML; nothing where there are no rows."""
    if not rows:
        return ""
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    heading = f"<h3>{title}</h3>" if title else ""
    return f"{heading}<div class=scroll tabindex=0><table><tbody>{body}</tbody></table></div>"
