"""The explorer's page in a browser, as a person uses it."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cnnviz
from cnnviz import demo

pytest.importorskip("starlette", reason="the explorer's tests need cnnviz[serve]")
pytest.importorskip("uvicorn", reason="the explorer's tests need cnnviz[serve]")
pytest.importorskip("playwright.sync_api", reason="the browser tests need Playwright")

from playwright.sync_api import expect

from cnnviz.pages.explorer.guard import Keys
from cnnviz.pages.explorer.jobs import Jobs
from cnnviz.pages.explorer.offered import subject
from cnnviz.pages.explorer.server import bound, server_of

HOSTILE = "<img src=x onerror=alert(1)>\"'&"


@dataclass(frozen=True)
class Served:
    """A server in a thread of this process."""

    keys: Keys
    jobs: Jobs


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """The explorer of two networks, one of which has hostile class names and a hostile name."""
    model = cnnviz.load_model("demo")
    names = tuple(f"{HOSTILE}\N{RIGHT-TO-LEFT OVERRIDE} {name}" for name in demo.CATEGORIES)
    hostile = replace(model, name=HOSTILE, categories=names)
    listening = bound(0)
    keys, jobs = Keys(listening.getsockname()[1]), Jobs()
    server = server_of([subject(model, {}), subject(hostile, {})], keys, jobs)
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
    thread.start()
    yield Served(keys, jobs)
    server.should_exit = True
    jobs.close()
    thread.join(10)
    listening.close()
    assert not thread.is_alive()


def answered(page: Any, count: int) -> None:
    """Wait for so many answers that are drawn."""
    expect(page.locator("#status")).to_have_text(re.compile("^Done"))
    expect(page.locator("figure.answer")).to_have_count(count)


def met(watched: Any, words: str) -> None:
    """Wait for a fault that the test provoked; the console may tell it a moment later than the page."""
    for _ in range(100):
        if any(words in fault for fault in watched.faults):
            break
        watched.page.wait_for_timeout(20)
    watched.expected(words)


def drawn(page: Any, place: int = 0) -> Any:
    """The pixels of an answer that is shown."""
    image = page.locator("figure.answer img").nth(place)
    expect(image).to_have_js_property("complete", True)
    content = page.context.request.get(image.evaluate("image => image.src")).body()
    return np.asarray(Image.open(io.BytesIO(content)))


def test_a_picture_is_explained_and_the_question_changed(served: Served, watched: Any, tmp_path: Path) -> None:
    page = watched.open(served.keys.address)
    expect(page.get_by_role("heading", name="Begin with a picture")).to_be_visible()
    assert "token" not in page.url
    expect(page.locator("#explain")).to_be_disabled()
    (tmp_path / "cross.png").write_bytes(_png(demo.pictures().pictures[4]))
    page.set_input_files("#file", str(tmp_path / "cross.png"))
    answered(page, 2)
    expect(page.locator("#picture-name")).to_have_text(re.compile("cross.png, 96 . 96 pixels"))
    # the model's five best classes, the first chosen
    classes = page.locator("#classes").get_by_role("radio")
    expect(classes).to_have_count(5)
    expect(classes.first).to_be_checked()
    expect(page.locator("#classes label").first).to_contain_text("cross")
    first = page.locator("figure.answer").first
    expect(first).to_contain_text("cross, score")
    # another class, found by a part of its name
    before = drawn(page)
    page.get_by_label("Find another class").fill("ircl")
    page.get_by_role("button", name="circle (0)").click()
    expect(first).to_contain_text("circle, score")
    answered(page, 2)
    assert not np.array_equal(drawn(page), before)
    # another layer
    page.get_by_label("Layer of the map").select_option("layer1")
    expect(first).to_contain_text("grad_cam(layer='layer1')")
    answered(page, 2)
    # another method, and fewer
    page.get_by_label("Find a method").fill("layer_c")
    page.get_by_role("checkbox", name="layer_cam").check()
    answered(page, 3)
    page.get_by_label("Find a method").fill("")
    page.get_by_role("checkbox", name="guided_backprop").uncheck()
    answered(page, 2)
    expect(page.locator("figure.answer h3")).to_have_text(["grad_cam", "layer_cam"])
    # drawn otherwise, without asking the model again
    jobs = len(served.jobs.kept)
    page.get_by_label("Drawn by").select_option("heatmap")
    page.get_by_label("colormap").select_option("magma")
    expect(page.locator("figure.answer img").first).to_have_attribute("src", re.compile("magma"))
    expect(page.locator(".bar").first).to_have_css("background-image", re.compile("gradient"))
    assert len(served.jobs.kept) == jobs
    wanted = cnnviz.explain(cnnviz.load_model("demo"), tmp_path / "cross.png", "grad_cam", target=0, layer="layer1")
    assert np.array_equal(drawn(page), wanted.render("heatmap", colormap="magma")[0])
    # the values as a file, and the Python
    page.locator(".menu summary").first.click()
    with page.expect_download() as download:
        page.get_by_role("link", name=".npz").first.click()
    assert download.value.suggested_filename == "grad_cam.npz"
    assert np.array_equal(np.load(download.value.path())["values"], wanted.numpy())
    page.get_by_text("The Python that makes").click()
    expect(page.locator("#python-text")).to_contain_text(
        "grad_cam_map.save('grad_cam.png', 'heatmap', colormap='magma')"
    )


def test_a_formula_is_marked_where_it_is_wrong_and_mended(served: Served, watched: Any) -> None:
    page = watched.open(served.keys.address)
    page.get_by_role("button", name="Use the example picture").click()
    answered(page, 2)
    formula = page.get_by_label("Formula")
    formula.fill("guided_backprop() * upsmaple(grad_cam())")
    expect(page.locator("#formula-marks mark")).to_have_text("upsmaple")
    expect(page.locator("#formula-says")).to_contain_text("upsample")
    expect(formula).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#explain")).to_be_disabled()
    expect(page.locator("figure.answer")).to_have_count(2)
    page.get_by_role("button", name="Write upsample there").click()
    expect(formula).to_have_value("guided_backprop() * upsample(grad_cam())")
    answered(page, 3)
    expect(page.locator("#formula-marks mark")).to_have_count(0)
    expect(page.locator("figure.answer h3").last).to_have_text("guided_backprop() * upsample(grad_cam())")


def test_progress_is_shown_and_a_job_cancelled(served: Served, watched: Any) -> None:
    page = watched.open(served.keys.address)
    page.get_by_role("button", name="Use the example picture").click()
    answered(page, 2)
    page.get_by_label("Formula").fill("rise(masks=50000)")
    expect(page.locator("#status")).to_have_text("Computing rise(masks=50000), 3 of 3.")
    bar = page.get_by_role("progressbar", name="Progress")
    expect(bar).to_be_visible()
    page.wait_for_timeout(300)
    assert 2 / 3 <= bar.evaluate("bar => bar.value") < 1
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#status")).to_have_text("Cancelled. The answers that were done by then are shown.")
    expect(bar).to_be_hidden()
    expect(page.locator("figure.answer")).to_have_count(2)
    page.get_by_label("Formula").fill("")
    answered(page, 2)


def test_hostile_names_are_text(served: Served, watched: Any, tmp_path: Path) -> None:
    page = watched.open(served.keys.address)
    page.get_by_label("Model", exact=True).select_option(HOSTILE)
    file = {"name": f"{HOSTILE}.png", "mimeType": "image/png", "buffer": _png(demo.pictures().pictures[3])}
    page.set_input_files("#file", files=file)
    answered(page, 2)
    expect(page.locator("#picture-name")).to_contain_text(HOSTILE)
    expect(page.locator("#classes label").first).to_contain_text(f"{HOSTILE}\N{REPLACEMENT CHARACTER} star")
    expect(page.locator("figure.answer").first).to_contain_text(f"{HOSTILE}\N{REPLACEMENT CHARACTER} star, score")
    page.get_by_text("The Python that makes").click()
    expect(page.locator("#python-text")).to_contain_text(repr(f"{HOSTILE}.png"))
    formula = page.get_by_label("Formula")
    formula.fill(HOSTILE)
    expect(page.locator("#formula-says.error")).to_be_visible()
    assert page.locator("img[src='x']").count() == 0


def test_a_bad_picture_and_a_wrong_token_are_told(served: Served, watched: Any) -> None:
    page = watched.open(served.keys.address)
    page.set_input_files("#file", files={"name": "no.png", "mimeType": "image/png", "buffer": b"<svg/>"})
    expect(page.get_by_role("alert")).to_contain_text("'no.png' is not a picture that can be read")
    met(watched, "422")
    expect(page.locator("#status")).to_have_text("Choose a picture first.")
    page.context.clear_cookies()
    page.get_by_role("button", name="Use the example picture").click()
    expect(page.get_by_role("alert")).to_contain_text("the token is missing or wrong")
    met(watched, "403")
    page.goto(f"{served.keys.address}x")
    expect(page.locator("body")).to_contain_text("the token is missing or wrong; open the address")
    met(watched, "403")


def test_on_a_phone_by_keyboard(served: Served, watched: Any) -> None:
    watched.page.set_viewport_size({"width": 390, "height": 800})
    page = watched.open(served.keys.address)
    example = page.get_by_role("button", name="Use the example picture")
    expect(example).to_be_in_viewport()
    example.focus()
    page.keyboard.press("Enter")
    answered(page, 2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#classes input").first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#classes input").nth(1)).to_be_checked()
    expect(page.locator("figure.answer").first).to_contain_text("triangle, score")
    page.get_by_role("link", name="See the answers").click()
    expect(page.locator("figure.answer img").first).to_be_in_viewport()
    unnamed = "field => !field.labels?.length && !field.getAttribute('aria-labelledby') && !field.hidden"
    fields = page.locator("input, select, textarea")
    assert [each for each in range(fields.count()) if fields.nth(each).evaluate(unnamed)] == []


def _png(pixels: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
