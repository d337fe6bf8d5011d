"""What /openapi.json says beyond what FastAPI finds out by itself: errors, the key, audio."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from flowavenet.serve.gate import OPEN

BINARY = {"schema": {"type": "string", "format": "binary"}}


class Wrong(BaseModel):
    """Why a request is not served."""

    error: str = Field(description="One line.")


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How /openapi.json describes them."""
    return {status: {"model": Wrong, "description": HTTPStatus(status).phrase} for status in statuses}


GATE = errors(401, 408, 429, 503)
"""What the gate may say."""


def describe(app: FastAPI, keyed: bool) -> None:
    """Put into /openapi.json what FastAPI does not know: the key; and that no address can say null."""
    said = app.openapi()
    if keyed:
        said["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, methods in said["paths"].items():
        for about in methods.values():
            about["security"] = [{"key": []}] if keyed and path not in OPEN else []
            for schema in (parameter["schema"] for parameter in about.get("parameters", ())):
                schema |= schema.pop("anyOf", [{}])[0]
