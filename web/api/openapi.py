"""The OpenAPI document: `/openapi.json` for programs, `/docs` for people.

`openapi.yaml` has the operations; the schemas come from the models that validate requests and
shape the answers. The document is made once per process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from flask import Blueprint, Response, render_template, request
from pydantic.json_schema import models_json_schema

from web.contract.answer_schemas import (
    DispatchPage,
    DispatchRecord,
    Health,
    ProblemAnswer,
    Readiness,
    ServerSentEvent,
    StreamEvent,
    TokenAnswer,
)
from web.contract.request_schemas import TokenRequest
from web.pages.static_files import PAGES, TEMPLATES

blueprint = Blueprint("openapi", __name__, template_folder=TEMPLATES)


def document() -> dict[str, Any]:
    """Make the OpenAPI 3.1 document."""
    text = Path(__file__).with_name("openapi.yaml").read_text("utf-8")
    api: dict[str, Any] = yaml.safe_load(text)
    del api["shared"]  # the operations refer to it by YAML's anchors
    _, definitions = models_json_schema(
        [
            (TokenRequest, "validation"),
            (TokenAnswer, "serialization"),
            (DispatchPage, "serialization"),
            (DispatchRecord, "serialization"),
            (ServerSentEvent, "serialization"),
            (StreamEvent, "serialization"),
            (Health, "serialization"),
            # In these a field with a default may be missing.
            (ProblemAnswer, "validation"),
            (Readiness, "validation"),
        ],
        by_alias=False,  # protobuf's camelCase is taken, too; the contract's names are these
        ref_template="#/components/schemas/{model}",
    )
    api["components"]["schemas"] = definitions["$defs"]
    return api


@lru_cache(maxsize=16)
def _document_text(prefix: str) -> str:
    return json.dumps({**document(), "servers": [{"url": prefix or "/"}]})


@lru_cache(maxsize=16)
def _page(prefix: str) -> str:
    return render_template("docs.html", api=json.loads(_document_text(prefix)), root_path=prefix)


@blueprint.app_template_filter("pretty")
def _pretty(value: object) -> str:
    return json.dumps(value, indent=2)


@blueprint.app_template_filter()
def schema_name(schema: Mapping[str, Any]) -> str:
    """Name a schema for people: "list of DispatchSummary", "string or null"."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(schema_name(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {schema_name(schema['items'])}"
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    return str(schema.get("type", "anything"))


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """Serve the OpenAPI document."""
    return Response(_document_text(request.root_path), mimetype="application/json")


@blueprint.get("/docs")
def docs() -> Response:
    """Serve the document as a page for people, without a script."""
    return Response(_page(request.root_path), mimetype="text/html")


@blueprint.get("/docs.css")
def docs_style() -> Response:
    """Serve the style of `/docs`."""
    text = (PAGES / "docs.css").read_text("utf-8")
    return Response(text, mimetype="text/css", headers={"Cache-Control": "max-age=3600"})
