"""The report of an audit: one page that asks for nothing, whose every name is text, and one picture."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cnnviz
from cnnviz import Explanation
from cnnviz.__main__ import main
from cnnviz.datasets import Audit, Batch, audit, audit_maps

ROW, COLUMN = np.mgrid[:16, :16] + 0.5
HOSTILE = '<img src=x onerror="alert(1)">&\'"</td><script>alert(2)</script>'


class Reader(HTMLParser):
    """What a page has: its tags with their attributes, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text())
    return reader


def of_maps(names: list[str], ids: list[str] | None = None) -> Audit:
    rng = np.random.default_rng(0)
    rows, columns = rng.triangular(3, 8, 13, (2, len(names)))
    rows[:15] = columns[:15] = 1.5
    heat = np.exp(-((ROW - rows[:, None, None]) ** 2 + (COLUMN - columns[:, None, None]) ** 2) / 8)
    return audit_maps(heat + 0.1 * rng.random(heat.shape), names, ids=ids)


def test_a_page_holds_its_pictures_and_asks_for_nothing(batch: Batch, tmp_path: Path) -> None:
    path = batch.report(tmp_path / "report.html", method="grad_cam")
    page = read(path)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "a", "form"})
    for tag, attributes in page.tags:
        assert not {"onerror", "onload", "srcset", "style"} & attributes.keys()
        if "src" in attributes:
            content = str(attributes["src"])
            assert tag == "img"
            assert content.startswith("data:image/jpeg;base64,")
            picture = Image.open(io.BytesIO(base64.b64decode(content.partition(",")[2])))
            assert [str(side) for side in picture.size] == [attributes["width"], attributes["height"]]
    (policy,) = (each["content"] for _, each in page.tags if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    (style,) = re.findall("<style>(.*?)</style>", path.read_text(), re.DOTALL)
    assert f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'" in policy
    assert len(re.findall("http", path.read_text())) == 1  # of http-equiv
    for name in batch.answered.ids:
        assert any(name in text for text in page.text)


def test_names_and_ids_are_text_whatever_they_are(tmp_path: Path) -> None:
    found = of_maps([HOSTILE] * 40, [f"{number}{HOSTILE}" for number in range(40)])
    page = read(found.report(tmp_path / "report.html"))
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any("onerror" in each for _, each in page.tags)
    assert HOSTILE in page.text
    assert any(f"'{HOSTILE}'" in text for text in page.text)  # in a sentence of the verdict


def test_the_cluster_is_shown_with_its_sentence_and_its_pictures(tmp_path: Path) -> None:
    page = read(of_maps(["a", "b"] * 30).report(tmp_path / "report.html"))
    at = page.text.index("15 pictures with heat in the top left corner")
    assert page.text[at + 1].startswith("15 pictures of 'a' (8) and 'b' (7) have ")
    shown = [text for text in page.text if re.fullmatch(r"\d+ \([ab]\)", text)]
    assert len(shown) == 8
    assert all(int(text.split()[0]) < 15 for text in shown)


def test_a_report_of_many_classes_takes_little_space(tmp_path: Path) -> None:
    """Noise is the largest that a picture can be as JPEG; how many are drawn does not grow with the data set."""
    noise = torch.rand(1, 3, 96, 96)
    one = Explanation(torch.zeros(1, 1, 2, 2), noise, torch.zeros(1).long(), torch.zeros(1), "noise")
    found = replace(of_maps([f"class {number % 100}" for number in range(400)]), explanation_of=lambda number: one)
    many = replace(found, clusters=found.clusters[:1] * 30)
    path = many.report(tmp_path / "report.html")
    assert 1_000_000 < path.stat().st_size < 5_000_000
    assert any("80 more classes are not drawn." in text for text in read(path).text)
    assert "18 more clusters." in read(path).text


def test_pictures_that_are_gone_are_told_and_their_maps_drawn(batch: Batch, tmp_path: Path) -> None:
    moved = cnnviz.open_batch(batch.out, tmp_path)
    page = read(audit(moved, "grad_cam").report(tmp_path / "report.html"))
    assert any("6 pictures could not be read again, and only their maps are drawn: " in text for text in page.text)
    assert sum(tag == "img" for tag, _ in page.tags) > 6


def test_the_picture_has_the_verdict_and_all_tiles(batch: Batch, tmp_path: Path) -> None:
    found = audit(batch, "grad_cam")
    found.report(tmp_path / "report.png")
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.width >= 900
        assert picture.height > 300
    with pytest.raises(ValueError, match=r"report.pdf has no suffix of a report; use .html"):
        found.report(tmp_path / "report.pdf")


# The command


def test_the_command_prints_the_verdict_and_writes_the_report(
    batch: Batch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.html"
    words = ["audit", str(batch.out), "--method", "grad_cam"]
    assert main([*words, "-o", str(report)]) == 1  # of seven items one is damaged
    out, err = capsys.readouterr()
    assert out.splitlines() == [*audit(batch, "grad_cam").verdict, f"{report}: the report"]
    assert "1 of 7 items have no maps, because they failed or are not computed yet" in err
    assert report.read_text().startswith("<!doctype html>")
    assert main([*words, "-o", str(report)]) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert main([*words, "--json", "--quiet"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(json.dumps(audit(batch, "grad_cam").document()))
    assert set(told) == {
        "method", "by", "pictures", "of", "blank", "verdict", "regions", "inside", "places", "clusters", "examples",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the batch has the methods grad_cam, gradient; name the one that is audited"),
        (["-m", "grad_cam", "-o", "report.txt"], "report.txt has no suffix of a report"),
        (["-m", "grad_cam", "--show"], "--show opens the report, and none is written"),
        (["-m", "grad_cam", "--by", "label"], "no item of the batch has a label class; use by='predicted'"),
        (["-m", "grad_cam", "--annotations", "gone"], "gone"),
    ],
)
def test_a_wrong_command_is_one_line(
    batch: Batch, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(batch.out), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
