"""What a page sends, read within limits. Nothing that it names is opened or looked up here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request

from cnnviz.explanations.explanation import Explanation
from cnnviz.images.originals import At
from cnnviz.pages.explorer.limits import QUESTION, Refused
from cnnviz.pages.explorer.offered import checked_settings, usual_settings
from cnnviz.registry.registry import RendererMethod, renderers


async def body(request: Request, most: int, what: str) -> bytes:
    """What was sent. Raises Refused (413) as soon as it is too long, whatever was announced."""
    refusal = Refused(413, f"{what} has more than the {most:,} bytes that are taken")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > most:
        raise refusal
    content = bytearray()
    try:
        async for part in request.stream():
            content += part
            if len(content) > most:
                raise refusal
    except ClientDisconnect:
        raise Refused(400, f"{what} ends before its end") from None  # which nobody reads any more
    if not content:
        raise Refused(422, f"{what} is empty")
    return bytes(content)


async def json_object(request: Request) -> dict[str, Any]:
    content = await body(request, QUESTION, "the question")
    try:
        asked = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused(422, "what was sent is no JSON") from error
    if not isinstance(asked, dict):
        raise Refused(422, "what was sent is no JSON object")
    return asked


@dataclass(frozen=True)
class View:
    """How a page draws its answers."""

    renderer: str | None
    """None for each method's own."""
    settings: Any
    at: At

    def of(self, explanation: Explanation) -> tuple[RendererMethod, dict[str, Any]]:
        """The renderer of an explanation, and its settings. Raises ValueError for settings that it has not."""
        if self.renderer is None:
            own = renderers[explanation.usual_renderer]
            return own, usual_settings(own)
        chosen = renderers[self.renderer]
        return chosen, checked_settings(chosen, self.settings)


def view(request: Request) -> View:
    """How answers are to be drawn. Raises Refused (422) for what is no renderer or no size."""
    query = request.query_params
    name, at, text = query.get("renderer") or None, query.get("at", "input"), query.get("settings", "{}")
    if name is not None and name not in renderers:
        raise Refused(422, f"there is no renderer {name[:80]!r}")
    if at not in ("input", "original"):
        raise Refused(422, "pictures are drawn at input or at original")
    try:
        settings = json.loads(text) if len(text) <= QUESTION else None
    except (ValueError, RecursionError) as error:
        raise Refused(422, "the settings are no JSON") from error
    return View(name, settings, "original" if at == "original" else "input")
