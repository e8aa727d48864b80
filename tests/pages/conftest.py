"""A browser without a window, for the pages that cnnviz makes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

STAYS = ("data", "blob", "about")


class Watched:
    """A page of the browser that remembers what no page of ours may do: errors, dialogs, and requests elsewhere.

    ``page`` is Playwright's own; ``faults`` what was seen so far. A test that provokes one on purpose takes it out
    with :meth:`expected`.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        self.faults: list[str] = []
        self._home: tuple[str, str] | str | None = None
        page.set_default_timeout(15_000)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("dialog", self._dialog)
        page.on("request", self._request)

    def open(self, url: str) -> Any:
        """Go there, and take its file or host as the only one that the page may ask. Returns the page."""
        parts = urlsplit(url)
        self._home = url.partition("#")[0] if parts.scheme == "file" else (parts.scheme, parts.netloc)
        self.page.goto(url)
        return self.page

    def expected(self, words: str) -> None:
        """Take out the faults whose text has the words. Raises AssertionError where there is none."""
        found = [fault for fault in self.faults if words in fault]
        assert found, f"no fault with {words!r} in {self.faults}"
        self.faults = [fault for fault in self.faults if words not in fault]

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.faults.append(f"console: {message.text}")

    def _dialog(self, dialog: Any) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        home = request.url.partition("#")[0] if parts.scheme == "file" else (parts.scheme, parts.netloc)
        if parts.scheme not in STAYS and home != self._home:
            self.faults.append(f"request: {request.url[:200]}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, of the system or of Playwright; the tests that need it are skipped where there is none.

    One for each file: while Playwright is there, its event loop runs in this thread, and no test of another file could
    run one of its own.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need Playwright")
    with playwright.sync_playwright() as driver:
        try:
            found = driver.chromium.launch(
                executable_path=shutil.which("chromium") or shutil.which("chromium-browser"), args=["--no-sandbox"]
            )
        except playwright.Error as error:
            pytest.skip(f"Chromium does not start: {str(error).splitlines()[0]}")
        yield found
        found.close()


@pytest.fixture
def watched(browser: Any) -> Iterator[Watched]:
    """A page of 1280 x 900 pixels. The test fails for an error on the console, a dialog, or a request elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    watching = Watched(context.new_page())
    yield watching
    context.close()
    assert not watching.faults
