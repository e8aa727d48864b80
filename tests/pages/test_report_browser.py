"""The report in a browser: what its controls change, what it tells, and that nothing of anyone's names runs."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_pages import data_of, hostile_report, maps_of

from cnnviz import demo, explain, load_model
from cnnviz.targets import top

READY = "html[data-ready=yes]"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures of 120 x 96, of which the network sees 96 x 96; three methods, three classes."""
    folder = tmp_path_factory.mktemp("report")
    drawn = demo.pictures("demo").pictures[:2]
    pictures = [np.concatenate([each, each[:, :24]], axis=1) for each in drawn]
    model = load_model("demo")
    answers = explain(model, pictures, ["grad_cam", "layer_cam", "gradient"], target=top(3))
    return answers.report(folder / "report.html", model=model, verdict=False)


def opened(watched: Any, path: Path) -> Any:
    page = watched.open(path.as_uri())
    page.wait_for_selector(READY, state="attached")
    return page


def values_of(page: Any, column: int) -> str:
    return str(page.locator(".row").first.locator(".tile").nth(column).locator(".value").inner_text())


def pixels(page: Any, row: int, column: int) -> Any:
    """What a tile's canvas shows, (H, W, 4)."""
    canvas = page.locator(".row").nth(row).locator(".tile canvas").nth(column)
    content = canvas.evaluate("each => each.toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content.partition(",")[2]))))


def to_slider(page: Any, name: str, value: int) -> None:
    page.locator(f"#{name}").fill(str(value))
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_the_controls_change_what_the_maps_show(watched: Any, report: Path) -> None:
    page = opened(watched, report)
    data = data_of(report.read_text(encoding="utf-8"))
    before = pixels(page, 0, 0)
    assert before.shape == (307, 384, 4)

    to_slider(page, "opacity", 0)
    bare = pixels(page, 0, 0)
    assert (bare == pixels(page, 0, 2)).all()  # the picture alone, whatever the method
    to_slider(page, "opacity", 100)
    alone = pixels(page, 0, 2)
    left, _, right, _ = (round(side * 3.2) for side in data["rows"][0]["box"])
    assert (alone[:, : left - 3] == bare[:, : left - 3]).all()  # what the network did not see has no map
    assert not (alone[:, left + 3 : right - 3] == bare[:, left + 3 : right - 3]).all(2).mean() > 0.05
    assert page.locator("output[for=opacity]").inner_text() == "100 %"

    scales = page.locator(".row").nth(1).locator(".limits")
    first = scales.all_inner_texts()
    page.locator("input[name=rank][value='1']").check()
    page.locator(".row").nth(1).locator(
        "button[aria-pressed=true]", has_text=data["rows"][1]["classes"][1]["name"]
    ).wait_for()
    second = scales.all_inner_texts()
    assert all(one != other for one, other in zip(first, second, strict=True))
    high = maps_of(data["rows"][1]["tiles"][2])[1][0][0][3]
    assert second[2] == f"0 to {float(f'{high:.3g}'):g}"
    page.locator(".row").nth(1).locator(".classes button").nth(2).click()  # this picture alone
    assert scales.all_inner_texts()[2] != second[2]
    name = data["rows"][1]["classes"][2]["name"]
    label = page.locator(".row").nth(1).locator("canvas[role=img]").first.get_attribute("aria-label")
    assert label.startswith(f"grad_cam of {name} for input 2: the peak is ")

    layers = page.locator(".row").first.locator(".layer")
    assert layers.first.inner_text() == f"layer {data['methods'][0]['own']}"
    to_slider(page, "depth", 0)
    assert [*layers.all_inner_texts()] == [f"layer {data['depth'][0]}"] * 2 + [""]
    assert page.locator("#depth").get_attribute("aria-valuetext") == data["depth"][0]

    to_slider(page, "depth", len(data["depth"]))
    with_signs = pixels(page, 0, 0)
    page.locator("#only").check()
    to_slider(page, "opacity", 99)
    to_slider(page, "opacity", 100)
    assert not (pixels(page, 0, 0) == with_signs).all()
    by_cut = pixels(page, 0, 2)
    page.locator("#full").select_option("peak")
    to_slider(page, "opacity", 99)
    to_slider(page, "opacity", 100)
    assert pixels(page, 0, 2)[..., :3].mean() < by_cut[..., :3].mean()  # the peak is above the percentile


def test_the_value_under_the_pointer_is_the_stored_one(watched: Any, report: Path) -> None:
    page = opened(watched, report)
    data = data_of(report.read_text(encoding="utf-8"))
    left, top_, right, bottom = data["rows"][0]["box"]
    width, height = data["rows"][0]["size"]
    for column in (0, 2):
        canvas = page.locator(".row").first.locator(".tile canvas[role=img]").nth(column)
        place = canvas.bounding_box()
        about, found = maps_of(data["rows"][0]["tiles"][column])[0][0]
        for row, cell in ((0, 0), (len(found) // 2, found.shape[1] // 3), (len(found) - 1, found.shape[1] - 1)):
            x = (left + (cell + 0.5) / found.shape[1] * (right - left)) / width * place["width"]
            y = (top_ + (row + 0.5) / found.shape[0] * (bottom - top_)) / height * place["height"]
            canvas.hover(position={"x": x, "y": y})
            byte = int(found[row, cell])
            value = about[2] + byte / 255 * (about[3] - about[2])
            told = values_of(page, column).replace("\N{MINUS SIGN}", "-")
            assert told.startswith(f"8-bit value {byte} = ")
            assert float(told.rpartition("= ")[2]) == pytest.approx(value, rel=0.006, abs=1e-9)
        canvas.hover(position={"x": 2, "y": 2})  # beyond what the network saw
        assert values_of(page, column) == ""


def test_it_works_by_keyboard(watched: Any, report: Path) -> None:
    page = opened(watched, report)
    data = data_of(report.read_text(encoding="utf-8"))
    found = maps_of(data["rows"][0]["tiles"][0])[0][0][1]
    row, column = divmod(int(found.argmax()), found.shape[1])
    page.locator(".row").first.locator(".tile canvas[role=img]").first.focus()
    page.keyboard.press("Home")
    assert values_of(page, 0).startswith(f"8-bit value {found.max()} = ")
    for key, across, down in (("ArrowLeft", -1, 0), ("ArrowUp", 0, -1), ("ArrowRight", 1, 0), ("ArrowDown", 0, 1)):
        page.keyboard.press(key)
        column = min(max(column + across, 0), found.shape[1] - 1)
        row = min(max(row + down, 0), len(found) - 1)
        assert values_of(page, 0).startswith(f"8-bit value {found[row, column]} = ")
    told = page.locator("#told").inner_text()
    assert told.endswith(f"row {row + 1} of {len(found)}, column {column + 1} of {found.shape[1]}")
    page.keyboard.press("Escape")
    assert values_of(page, 0) == ""
    reached = set()
    page.evaluate("document.activeElement.blur()")
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"opacity", "depth", "full", "only", "CANVAS", "BUTTON", "A"} <= reached


def test_no_name_runs_or_breaks_out(watched: Any, tmp_path: Path) -> None:
    page = opened(watched, hostile_report(tmp_path))
    for button in page.locator(".classes button").all():
        button.click()
    page.locator("canvas[role=img]").first.focus()
    page.keyboard.press("Home")
    assert page.evaluate("globalThis.struck") is None
    assert page.locator("script").count() == 2
    assert page.locator("b b, .row img:not(.photograph img)").count() == 0
    assert "<img src=x" in page.locator("h1").inner_text()
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert len(watched.faults) == 0


def test_it_is_read_without_scripts_in_the_dark_on_a_phone_and_on_paper(
    browser: Any, watched: Any, report: Path
) -> None:
    page = opened(watched, report)
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(CONTRAST) >= 4.5
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.emulate_media(media="print", color_scheme="light")
    assert not page.locator("#controls").is_visible()
    assert page.locator(".tile canvas[role=img]").first.is_visible()
    assert page.locator("#made").is_visible()
    assert page.pdf()[:4] == b"%PDF"

    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 800})
    plain = context.new_page()
    plain.goto(report.as_uri())
    # a browser that was told by its driver to run no scripts still parses as if it ran them
    assert "Scripts are off." in plain.locator("noscript").text_content()
    assert not plain.locator("#controls").is_visible()
    stills = plain.locator(".still")
    assert stills.count() == 6
    assert all(each.is_visible() and each.get_attribute("alt") for each in stills.all())
    context.close()


CONTRAST = """() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([red, green, blue]) => [red, green, blue].map((each) => each / 255)
    .map((each) => each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const found = numbers(getComputedStyle(each).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const hasText = (each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  const texts = [...document.querySelectorAll("body *")]
    .filter((each) => each.checkVisibility() && hasText(each) && !each.closest(".unseen, .skip, script"));
  return Math.min(...texts.map((each) => {
    const both = [luminance(numbers(getComputedStyle(each).color)), luminance(behind(each))];
    both.sort((one, other) => other - one);
    return (both[0] + 0.05) / (both[1] + 0.05);
  }));
}"""
"""The lowest contrast of a text with what is behind it."""
