"""The browser of these tests notices what no page of ours may do."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_it_notices_errors_dialogs_and_requests_elsewhere(watched: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        "<title>x</title><img src='http://127.0.0.1:9/picture.png'><script>console.error('told');"
        "fetch('http://127.0.0.1:9/elsewhere').catch(() => 0); alert('asked'); missing.call();</script>"
    )
    watched.open(page.as_uri())
    for words in ("console: told", "dialog: asked", "missing is not defined", "/elsewhere", "/picture.png"):
        watched.expected(words)
    for _ in range(200):  # the picture's failure and the script's come when the network says so
        if sum("net::ERR" in fault for fault in watched.faults) == 2:
            break
        watched.page.wait_for_timeout(50)
    watched.expected("net::ERR")


def test_it_lets_a_plain_page_pass(watched: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<title>plain</title><img alt='' src='data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA='>")
    assert watched.open(page.as_uri()).title() == "plain"
    assert not watched.faults
