"""The report's content: what it stores of maps, how texts from anywhere stand in it, and what it refuses."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from report_pages import data_of, hostile_report, maps_of
from torch import nn

from cnnviz import Explanation, demo, explain, load_model
from cnnviz.explanations import ExplanationList, Explanations
from cnnviz.models.loading import LoadedModel
from cnnviz.pages.report.depth import chosen_layers
from cnnviz.pages.report.maps import SIDE, Map, reduced_maps, stored
from cnnviz.pages.report.page import json_in_html
from cnnviz.pages.shared.texts import plain_letters, shown
from cnnviz.targets import top


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model("demo")


@pytest.fixture(scope="module")
def answers(model: LoadedModel) -> Explanations[ExplanationList]:
    inputs = demo.as_inputs(demo.pictures("demo").pictures[:2])
    return explain(model, inputs, ["grad_cam", "layer_cam", "gradient"], target=top(3))


def test_a_map_in_eight_bits_is_off_by_half_a_step_and_its_zero_is_zero() -> None:
    values = np.random.default_rng(0).normal(size=(9, 7)).astype(np.float32)
    values[3, 4] = 0
    peak = float(np.abs(values).max())
    found = stored(Map(values, peak, (9, 7)), signed=True)
    step = (found.high - found.low) / 255
    assert found.high == peak == -found.low * 127 / 128
    assert found.bytes[3, 4] == 128
    assert abs(found.values()[3, 4]) < 1e-6 * peak
    assert np.abs(found.values() - values).max() <= step * 0.5001
    positive = stored(Map(np.abs(values), peak, (9, 7)), signed=False)
    assert (positive.low, positive.high, positive.bytes[3, 4]) == (0.0, peak, 0)
    assert np.abs(positive.values() - np.abs(values)).max() <= peak / 255 * 0.5001
    assert positive.cut == pytest.approx(np.percentile(np.abs(values), 99.5))


@pytest.mark.parametrize("signed", [True, False])
def test_a_blank_map_has_no_scale(signed: bool) -> None:
    found = stored(Map(np.zeros((2, 3), np.float32), 0.0, (2, 3)), signed)
    assert (found.low, found.high, found.cut) == (0.0, 0.0, 0.0)
    assert not found.values().any()


def test_a_large_map_is_the_mean_over_the_area_of_each_place() -> None:
    """Against loops; magnitudes are added up over channels before."""
    values = torch.randn(1, 3, 224, 112, generator=torch.Generator().manual_seed(0))
    answer = Explanation(values, torch.zeros(1, 3, 224, 112), torch.tensor([0]), torch.zeros(1), "gradient()")
    (found,) = reduced_maps(answer)
    assert found.values.shape == (112, 56)
    assert found.size == (224, 112)
    summed = values[0].abs().sum(0)
    assert found.peak == pytest.approx(float(summed.max()))
    for row, column in ((0, 0), (50, 20), (111, 55)):
        mean = sum(float(summed[2 * row + y, 2 * column + x]) for y in (0, 1) for x in (0, 1)) / 4
        assert found.values[row, column] == pytest.approx(mean, rel=1e-5)


def test_the_page_stores_every_map_with_its_scale(answers: Any, model: LoadedModel, tmp_path: Path) -> None:
    path = answers.report(tmp_path / "report.html", model=model, verdict=False)
    data = data_of(path.read_text(encoding="utf-8"))
    assert [each["name"] for each in data["methods"]] == ["grad_cam", "layer_cam", "gradient"]
    assert [each["signed"][0] for each in data["methods"]] == [True, False, False]
    own = data["methods"][0]["own"]
    layers = data["methods"][0]["layers"]
    assert data["depth"] == layers == data["methods"][1]["layers"]
    assert len(layers) >= 2
    assert own not in layers
    assert data["methods"][2]["layers"] == []
    for number, row in enumerate(data["rows"]):
        assert [each["name"] for each in row["classes"]] == [each.names()[number] for each in answers["gradient"]]
        for name, tile in zip(answers, row["tiles"], strict=True):
            for rank, (about, found) in enumerate(each[0] for each in maps_of(tile)):
                answer = answers[name][rank]
                signed = name == "grad_cam"
                expected = stored(reduced_maps(answer)[number], signed)
                assert (found == expected.bytes).all()
                assert about[2:4] == pytest.approx([expected.low, expected.high])
                assert max(found.shape) <= SIDE
    for layer, at_layer in zip(layers, maps_of(data["rows"][1]["tiles"][0])[2][1:], strict=True):
        there = explain(
            model, answers["grad_cam"][2].inputs, "grad_cam", target=answers["grad_cam"][2].target, layer=layer
        )
        about, found = at_layer
        scale = float(there.values[1].abs().max())
        shown_values = about[2] + found / 255 * (about[3] - about[2])
        if there.values.shape[-1] <= 56:
            assert np.abs(shown_values - there.values[1, 0].numpy()).max() <= scale / 127 * 0.51


def test_layers_of_the_slider_are_in_the_order_in_which_they_run(model: LoadedModel) -> None:
    inputs = demo.as_inputs(demo.pictures("demo").pictures[:1])
    names = chosen_layers(model.module, inputs, torch.tensor([0]))
    order: list[str] = []  # in which their calls end
    hooks = [
        module.register_forward_hook(lambda *call, name=name: order.append(name))
        for name, module in model.module.named_modules()
    ]
    with torch.no_grad():
        model.module(inputs)
    for hook in hooks:
        hook.remove()
    assert names == sorted(names, key=order.index)
    assert len(names) == len(set(names)) <= 5
    maps = explain(model, inputs, ["grad_cam"], layer=names[0])
    assert maps["grad_cam"].values.ndim == 4


def test_names_from_anywhere_are_text(tmp_path: Path) -> None:
    page = hostile_report(tmp_path).read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert page.count("<script") == 2
    assert "<!--" not in page
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u2028\u2029]", page)
    assert "&lt;img src=x" in page
    assert "x" * 161 not in page


def test_a_text_is_shown_in_one_line_and_cut_in_its_middle() -> None:
    assert shown("two\nlines\t") == "two lines"
    assert shown("a\u202eb\x00c\ud800") == "a\ufffdb\ufffdc\ufffd"
    assert plain_letters("one\n\ttwo\xa0\u2009\u2028\x1b\udcff") == "one\n\ttwo\xa0\u2009\ufffd\ufffd\ufffd"
    family = "\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}"
    assert shown(family) == family
    assert len(shown("abc" * 200, 50)) <= 50
    assert shown("n" * 60 + ".JPEG", 30).endswith(".JPEG")


def test_json_in_a_page_ends_no_script() -> None:
    told = {"name": "</script><!--\u2028&"}
    text = json_in_html(told)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == told


def test_the_policy_lets_nothing_in_but_what_the_page_holds(answers: Any, tmp_path: Path) -> None:
    import hashlib

    page = answers.report(tmp_path / "report.html").read_text(encoding="utf-8")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.split(" ", 1) for rule in policy.replace("&#39;", "'").split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for name, (content,) in (
        ("style-src", re.findall("<style>(.*?)</style>", page, re.S)),
        ("script-src", re.findall("<script>(.*?)</script>", page, re.S)),
    ):
        assert rules[name] == f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
    assert not re.search(r"\son\w+=|style=|https?://(?!arxiv|doi)|innerHTML|eval\(", page)


def test_a_signal_is_drawn_by_its_renderer(tmp_path: Path) -> None:
    signal = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(nn.Conv1d(1, 3, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()).eval()
    answers = explain(network, signal, ["gradient"], target=top(2))
    data = data_of(answers.report(tmp_path / "report.html", model=network, verdict=False).read_text(encoding="utf-8"))
    assert data["depth"] == []
    for row in data["rows"]:
        for tile in row["tiles"]:
            assert len(tile["drawn"]) == 2
            picture = Image.open(io.BytesIO(base64.b64decode(tile["drawn"][0].partition(",")[2])))
            assert min(picture.size) > 30


def test_what_a_report_refuses(answers: Any, model: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no suffix of a report; use \.html"):
        answers.report(tmp_path / "report.pdf")
    with pytest.raises(ValueError, match="there are no explanations to report of"):
        Explanations({}).report(tmp_path / "report.html")
    mixed = Explanations({"one": answers["grad_cam"], "two": answers["gradient"][:1]})
    with pytest.raises(ValueError, match="two explains other inputs or classes than one"):
        mixed.report(tmp_path / "report.html")
    many = demo.as_inputs(demo.pictures("demo").pictures[:1]).expand(101, -1, -1, -1)
    few = explain(model, many[:1], ["activation"])
    with pytest.raises(ValueError, match="a report shows at most 100 pictures, and there are 101"):
        Explanations({"activation": replace(few["activation"], values=many[:, :1], inputs=many)}).report(
            tmp_path / "report.html"
        )
    with pytest.raises(LookupError, match="has no layer 'nowhere'"):
        answers.report(tmp_path / "report.html", model=model, depth="nowhere", verdict=False)
    with pytest.raises(ValueError, match="depth names layers for more maps, which need the model"):
        answers.report(tmp_path / "report.html", depth=["layer2"])
    with pytest.raises(ValueError, match=r"nothing can be shown at layer2: .* class activation maps"):
        Explanations({"gradient": answers["gradient"]}).report(
            tmp_path / "report.html", model=model, depth="layer2", verdict=False
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [AssertionError("</ul> & more"), SystemExit(3), MemoryError()])
def test_maps_are_not_lost_where_their_check_fails(
    error: BaseException, answers: Any, model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr("cnnviz.pages.report.verdict.check_on_model", fails)
    text = answers.report(tmp_path / "report.html", model=model, depth=False).read_text(encoding="utf-8")
    assert len(data_of(text)["rows"]) == 2
    told = re.search(r"Not checked: (.*)", text)
    kind, words = type(error).__name__, str(error).replace("</ul> & more", "&lt;/ul&gt; &amp; more")
    assert told
    assert told[1].startswith(f"{kind}: {words}." if words else f"{kind}.")


class OneOrTwo(nn.Module):
    """Takes a second input, or goes without."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, inputs: torch.Tensor, more: torch.Tensor | None = None) -> torch.Tensor:
        found = self.layer(inputs).relu().mean((2, 3))
        return found if more is None else found * 3 - self.layer(more).mean((2, 3))


def test_checks_and_layers_are_of_the_question_of_the_maps_or_refused(tmp_path: Path) -> None:
    model, path = OneOrTwo().eval(), tmp_path / "report.html"
    inputs = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    found = explain(model, (inputs, inputs), ["grad_cam"], target=0)
    for asked in (model, OneOrTwo().eval()):
        with pytest.raises(ValueError, match="can't be asked again about these maps: the model gives"):
            found.report(path, model=asked)
    assert not path.exists()
    assert len(data_of(found.report(path).read_text(encoding="utf-8"))["rows"]) == 2
    assert explain(model, inputs, ["grad_cam"], target=0).report(path, model=model, depth=model.layer) == path
