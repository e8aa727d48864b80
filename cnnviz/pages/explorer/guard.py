"""Who may speak to the server: the page that it served itself, opened by who has the token of this start."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"
PAGE_HEADER = "x-cnnviz-page"
"""A header that no form and no picture's address can send, with what stands in the page alone."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
WRONG = "the token is missing or wrong; open the address that cnnviz serve printed"
ALWAYS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Keys:
    """The secrets of one start."""

    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """In the address that is printed and, from the first load on, in a cookie that no script reads."""
    page: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """In the page, which sends it with all that changes something."""

    @property
    def cookie(self) -> str:
        """Its name; cookies of a host are shared by all its ports."""
        return f"cnnviz-{self.port}"

    @property
    def hosts(self) -> frozenset[str]:
        """What a browser on this machine calls the server. Any other name is a stranger's that leads here."""
        names = (HOST, "localhost")
        return frozenset(f"{name}:{self.port}" for name in names) | frozenset(names if self.port == 80 else ())

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.port}/?token={self.token}"


class Guard:
    """Refuses whatever does not come from the page, before any of it is read."""

    def __init__(self, app: ASGIApp, keys: Keys):
        self.app, self.keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # none are served
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(ALWAYS)
            await send(message)

        answer = self._refusal(scope, headers) or self.app
        await answer(scope, receive, sent)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if len(headers.getlist("host")) != 1 or headers["host"].lower() not in self.keys.hosts:
            return PlainTextResponse("This server answers on 127.0.0.1 and localhost alone.", 400)
        if scope["path"] == "/favicon.ico":  # browsers ask for it on their own, beside a refusal, too
            return Response(status_code=204)
        if scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
            if not (len(given) == 1 and _same(given[0], self.keys.token)) and not (not given and self._known(headers)):
                return PlainTextResponse(f"{WRONG}; each start has its own.", 403)
            return None
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return _no("this request comes from another page")
        if not self._known(headers):
            return _no(WRONG)
        if scope["method"] in ("GET", "HEAD"):
            return None
        if headers.get("origin", "").lower() != f"http://{headers['host'].lower()}":
            return _no("this request comes from another page")
        if not _same(headers.get(PAGE_HEADER, ""), self.keys.page):
            return _no("this page is of an earlier start; open the address that cnnviz serve printed")
        return None

    def _known(self, headers: Headers) -> bool:
        # http.cookies gives up at one odd cookie, and other programs of this host set theirs beside ours
        pairs = (part.strip().partition("=") for line in headers.getlist("cookie") for part in line.split(";"))
        return any(name == self.keys.cookie and _same(value, self.keys.token) for name, _, value in pairs)


def _same(given: str, secret: str) -> bool:
    """Compared in a time that tells nothing about the secret."""
    return hmac.compare_digest(given.encode(), secret.encode())


def _no(reason: str) -> JSONResponse:
    return JSONResponse({"error": reason}, 403)
