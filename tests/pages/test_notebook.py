"""What notebooks show: whole HTML with nothing from elsewhere, every name as text, and never a traceback."""

from __future__ import annotations

import sys
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from importlib.metadata import entry_points
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batch_runs import draw_pictures
from PIL import Image
from torch import nn

import cnnviz
from cnnviz import Explanation, LoadedModel, Segmentation, Synthesized, demo
from cnnviz.datasets import audit_maps
from cnnviz.drawing import as_uint8, colors_of
from cnnviz.drawing.telling import legends_of
from cnnviz.explanations import ExplanationList, Explanations, JointExplanation
from cnnviz.explanations.tables import Table
from cnnviz.models.prediction import Prediction, Predictions, Ranking
from cnnviz.pages.notebook.registered import summary_in_source
from cnnviz.registry.registry import Registry, registries
from cnnviz.targets import top
from cnnviz.tasks import Detection
from cnnviz.tasks.detection import Detections

HOSTILE = "\"><img src=x onerror=alert(1)></td></table><script>alert(2)</script>&amp;'\u202e\x1b[31m\udcff"
LIMIT = 300_000
VOID = {"img", "br"}
TAGS = {"div", "p", "b", "code", "span", "table", "thead", "tbody", "tr", "th", "td", "pre", *VOID}
ATTRIBUTES = {"style", "src", "width", "height", "alt", "align", "valign"}


class Reader(HTMLParser):
    """Reads HTML strictly: every tag is one that answers have, and is closed in its turn; all it shows is in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.pictures: list[tuple[str, Image.Image]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        assert {name for name, _ in attrs} <= ATTRIBUTES
        own = dict(attrs)
        assert "url" not in (own.get("style") or "")
        if tag == "img":
            kind, _, content = (own["src"] or "").partition(";base64,")
            assert kind in ("data:image/png", "data:image/jpeg")
            picture = Image.open(BytesIO(b64decode(content, validate=True)))
            picture.load()
            self.pictures.append((own["alt"] or "", picture))
            assert int(own["width"] or 0) > 0 < int(own["height"] or 0)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def shown(answer: Any) -> Reader:
    """What a notebook shows; whatever the answer is, its bundle keeps these promises."""
    bundle: Mapping[str, str] = answer._repr_mimebundle_()
    assert set(bundle) - {"image/png"} == {"text/html", "text/plain"}
    text = repr(answer).translate(dict.fromkeys([0x202E, 0x1B, 0xDCFF], "\ufffd"))
    assert bundle["text/plain"] == text
    assert len(bundle["text/html"]) <= LIMIT
    assert set(answer._repr_mimebundle_(include={"text/plain"})) == {"text/plain"}
    assert answer._repr_mimebundle_(exclude=["text/html", "image/png"]) == {"text/plain": text}
    if "image/png" in bundle:
        with Image.open(BytesIO(b64decode(bundle["image/png"], validate=True))) as picture:
            picture.load()
            assert picture.format == "PNG"
    return Reader(bundle["text/html"])


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return cnnviz.load_model("demo")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [Image.fromarray(each) for each in demo.pictures().pictures]


@pytest.fixture(scope="module")
def one(model: LoadedModel, pictures: list[Image.Image]) -> Explanation:
    return cnnviz.explain(model, pictures[0], "grad_cam")


@pytest.fixture
def hostile(model: LoadedModel, pictures: list[Image.Image], tmp_path: Path) -> Explanation:
    """Whatever a stranger names is hostile: the file, the class, the formula."""
    path = tmp_path / "<script>x.png"
    pictures[0].save(path)
    found = cnnviz.explain(model, path, "grad_cam")
    return replace(found, categories=(HOSTILE,) * 8, recipe=f"{HOSTILE}()")


def made(values: Any, size: tuple[int, ...], name: str = "made()", count: int = 1, channels: int = 3) -> Explanation:
    """An explanation of pictures of noise, all of them the same."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(1, channels, *size, generator=generator).expand(count, *(-1,) * (len(size) + 1))
    return Explanation(torch.as_tensor(values), inputs, torch.zeros(count, dtype=torch.long), torch.ones(count), name)


def test_an_explanation_is_beside_its_picture_with_class_score_probability_and_scale(
    model: LoadedModel, pictures: list[Image.Image], tmp_path: Path
) -> None:
    pictures[3].save(tmp_path / "found.png")
    answer = cnnviz.explain(model, tmp_path / "found.png", "grad_cam")
    page = shown(answer)
    assert answer.probability is not None
    assert f"class star score {answer.score.item():.2f}, probability" in page.text
    assert "found.png" in page.text
    assert "grad_cam(layer='layer3')" in page.text
    (_, picture), (_, drawn), (scale, bar) = page.pictures
    for seen, expected in ((picture, demo.pictures().pictures[3]), (drawn, answer.render()[0])):
        assert seen.size == (288, 288)  # three times as large; values are as they are, but for JPEG
        assert np.abs(np.asarray(seen.resize((96, 96), Image.Resampling.BOX), float) - expected).mean() < 3
    (legend,) = legends_of(cnnviz.renderers["overlay"](), answer) or []
    assert scale == f"colour bar from 0 to ≥ {legend.peak:.3g}"
    ends = np.asarray(bar.convert("RGB"), float)[0, [0, -1]]
    np.testing.assert_allclose(ends, 255 * colors_of(legend.colors, np.array([0.0, 1.0])), atol=1)
    whole = answer._repr_mimebundle_()
    assert set(whole) == {"image/png", "text/html", "text/plain"}
    assert answer._repr_mimebundle_(include=["text/html"]) == {"text/html": whole["text/html"]}
    assert answer._repr_mimebundle_(exclude={"text/html"}) == {
        name: whole[name] for name in ("image/png", "text/plain")
    }
    assert answer._repr_mimebundle_(include=["text/html", "image/png"], exclude=["text/html"]).keys() == {"image/png"}


@pytest.mark.parametrize("name", ["heatmap", "grayscale", "diverging", "color"])
def test_the_scale_that_a_renderer_tells_is_that_of_its_picture(name: str) -> None:
    values = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(3))
    explanation = made(values, (6, 5), count=2)
    settings: dict[str, Any] = {"fade": 1.0} if name == "diverging" else {}
    draw = cnnviz.renderers[name](**settings)
    numbers = {"heatmap": values.abs().sum(1), "grayscale": values.abs().sum(1), "diverging": values.sum(1)}
    drawn, legends = draw(explanation), legends_of(draw, explanation)
    assert legends is not None
    for number, legend in enumerate(legends):
        shares = (numbers.get(name, values)[number].double().numpy() - legend.lowest) / (legend.peak - legend.lowest)
        expected = colors_of(legend.colors, shares.clip(0, 1))
        if name == "color":  # each channel has its own gray
            expected = np.moveaxis(expected[..., 0], 0, -1)
        assert np.abs(drawn[number].astype(int) - as_uint8(expected).astype(int)).max() <= 2  # of 256 colours
        told = numbers.get(name, values)[number].abs() if legend.lowest < 0 else numbers[name][number]
        assert legend.highest == pytest.approx(told.max().item(), rel=1e-6)


def test_a_map_without_contrast_has_no_scale() -> None:
    page = shown(made(torch.zeros(1, 1, 4, 4), (8, 8)))
    assert "the map is blank" in page.text
    assert len(page.pictures) == 2


def test_methods_targets_and_inputs_are_labelled(model: LoadedModel, pictures: list[Image.Image]) -> None:
    methods = shown(cnnviz.explain(model, pictures[:2], ["grad_cam", "guided_backprop"]))
    assert "2 methods input 0 class circle score" in methods.text
    assert methods.text.count("guided_backprop") == 2
    assert len(methods.pictures) == 2 * (1 + 2 * 2)  # the input, and of two methods a map with its bar
    ranks = cnnviz.explain(model, pictures[0], "grad_cam", target=top(3))
    assert [name for name in demo.CATEGORIES if f"class {name}" in shown(ranks).text] == sorted(
        {each.names()[0] for each in ranks}, key=demo.CATEGORIES.index
    )
    both = cnnviz.explain(model, pictures[0], ["grad_cam", "gradient"], target=top(2))
    assert shown(both).text.count("class circle") == 2
    together = shown(JointExplanation([replace(ranks[0], of="left"), replace(ranks[0], of="right")]))
    assert "left" in together.text
    assert "right" in together.text


def test_what_is_no_map_of_a_picture_is_told(one: Explanation) -> None:
    broken = replace(one, values=one.values * torch.nan)
    assert "not drawn" in shown(broken).text
    assert "NaN" in shown(broken).text
    both = shown(Explanations({"fine": one, "broken": broken}))  # one that can't be drawn hides no other
    assert len(both.pictures) == 3
    assert "There is no input" in shown(one[:0]).text
    lost = replace(one, inputs=torch.empty(one.inputs.shape, device="meta"))
    assert "were not saved" in shown(lost).text
    assert "nosuch" in shown(replace(one, renderer="nosuch")).text
    assert "not drawn" in shown(made(torch.ones(1, 5, 4, 4), (8, 8))).text  # five maps of three channels
    vector = Explanation(torch.ones(1, 4), torch.ones(1, 4), None, torch.ones(1), "made()")
    assert len(shown(vector).pictures) == 1


@pytest.mark.parametrize("answer", [ExplanationList(), Explanations({}), JointExplanation(), Table(), Predictions()])
def test_what_is_empty_is_text(answer: Any) -> None:
    shown(answer)


def test_a_bundle_that_fails_is_the_text_and_the_reason(one: Explanation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Explanation, "titles", lambda each: 1 / 0)
    bundle = one._repr_mimebundle_()
    assert "can't be read: division by zero" in bundle["text/plain"]
    page = Reader(bundle["text/html"])
    assert "This answer can't be drawn: division by zero" in page.text


def test_signals_and_volumes_are_drawn_by_their_renderers() -> None:
    signal = shown(made(torch.rand(1, 1, 10), (20,)))
    ((_, drawn),) = signal.pictures  # its colour bar is in the figure
    assert drawn.width > 700
    volume = shown(made(torch.rand(1, 1, 2, 4, 4), (4, 8, 8)))
    assert [name.startswith("colour bar") for name, _ in volume.pictures] == [False, True]


def test_many_large_pictures_are_few_small_ones() -> None:
    coarse = torch.rand(64, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    answer = Explanations({f"method_{n}": made(coarse, (1000, 300), f"method_{n}()", 64) for n in range(8)})
    page = shown_once(answer)
    assert all(f"method_{number}" in page.text for number in range(8))
    count = int(page.text.partition("and ")[2].partition(" more inputs")[0])
    assert 56 <= count < 64
    assert "grid(...) draws, and save(...) writes all of them" in page.text


def shown_once(answer: Any) -> Reader:
    html = answer._repr_mimebundle_(include=["text/html"])["text/html"]
    assert len(html) <= LIMIT
    return Reader(html)


def test_more_methods_than_fit_are_told() -> None:
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    answer = Explanations({f"{number}" * 100: made(noise, (64, 64)) for number in range(90)})
    assert "more pictures of each input" in shown_once(answer).text


@pytest.mark.parametrize("wide", [False, True])
def test_a_long_table_is_cut(wide: bool) -> None:
    columns = 40 if wide else 3
    table = Table({f"{column}": "long " * 60 if wide else column for column in range(columns)} for _ in range(1000))
    page = shown(table)
    assert "1,000 rows" in page.text
    assert "more rows; to_dataframe(), markdown() and csv() have all of them" in page.text


def hostile_answers() -> dict[str, Callable[[Explanation], Any]]:
    """Each kind of answer, with hostile names wherever a stranger may name something."""
    table = Table([{HOSTILE: HOSTILE, "number": 1.0}])
    scores = Table([{"method": HOSTILE, "score": 1.0}])
    network = nn.Sequential(nn.Conv2d(3, 2, 3))

    def detections(each: Explanation) -> Detections:
        return Detections([[Detection(0, (0.0, 1.0, 2.0, 3.0), 1, HOSTILE, 0.5)]])

    return {
        "Explanation": lambda each: each,
        "Explanations": lambda each: Explanations({HOSTILE: each, f"{HOSTILE}2": each}),
        "ExplanationList": lambda each: ExplanationList([each, each]),
        "JointExplanation": lambda each: JointExplanation([replace(each, of=HOSTILE)]),
        "Table": lambda each: table,
        "scores": lambda each: scores,
        "Predictions": lambda each: Predictions([Ranking([Prediction(0, HOSTILE, 1.0, 0.5)])]),
        "Ranking": lambda each: Ranking([Prediction(0, HOSTILE, 1.0, 0.5)]),
        "Detections": detections,
        "LoadedModel": lambda each: LoadedModel(
            HOSTILE, network, demo.preprocessing(), (HOSTILE,) * 1000, notes=(HOSTILE,)
        ),
        "Synthesized": lambda each: Synthesized(each.inputs, torch.ones(2, 1), HOSTILE),
        "Segmentation": lambda each: Segmentation(each.inputs[:, 0] > 0, torch.tensor([[0, 0, 9, 9]]), each),
        "ConfusionMatrix": lambda each: cnnviz.ConfusionMatrix({(0, 0): 1}, ((0, 0),), each, (0,), (0,), (HOSTILE,)),
        "Audit": lambda each: audit_maps(np.ones((4, 16, 16)), [HOSTILE] * 4),
        "unreadable": lambda each: replace(each, renderer=HOSTILE),
    }


@pytest.mark.filterwarnings("ignore::cnnviz.drawing.FontWarning")
@pytest.mark.parametrize("kind", hostile_answers())
def test_a_hostile_name_is_text(kind: str, hostile: Explanation) -> None:
    answer = hostile_answers()[kind](hostile)
    page = shown(answer)
    named = page.text + " ".join(told for told, _ in page.pictures)
    assert "<script>" in named or kind in ("ConfusionMatrix",), "in a picture"
    assert len(repr(answer)) < 5000
    for text in answer._repr_mimebundle_().values():
        assert text.encode()  # a notebook is UTF-8
        assert not {"\u202e", "\x1b"} & {*text}


def test_a_model_is_told_without_its_thousand_classes(model: LoadedModel) -> None:
    page = shown(replace(model, categories=tuple(f"name {number}" for number in range(1000)), num_classes=1000))
    assert "1,000" in page.text
    assert "name 7, and 992 more" in page.text
    assert f"{sum(each.numel() for each in model.module.parameters()):,}" in page.text
    assert "mean (0.5, 0.5, 0.5)" in page.text


def test_what_tasks_answer_is_shown(model: LoadedModel, pictures: list[Image.Image], one: Explanation) -> None:
    ranking = model.predict(pictures[0], top=2)
    assert "circle" in shown(ranking).text
    assert shown(ranking[0]).text.startswith("Prediction class name score probability 0 circle")
    evaluation = cnnviz.evaluate({"grad_cam": one}, "sparseness")
    assert "sparseness" in shown(evaluation).text
    cut = cnnviz.segment(one)
    share = f"{100 * cut.masks.float().mean().item():.1f} % of the picture"
    assert share in shown(cut).text
    assert "none is found" in shown(replace(cut, masks=torch.zeros_like(cut.masks))).text
    best = shown(cnnviz.top_activations(model, [pictures], "layer3", [2, 1], 3))
    assert "channel 2, input" in best.text
    assert len(best.pictures) == 6
    best = shown(cnnviz.top_activations(model, [pictures], "layer3", [2], 3, by="relevance"))
    assert "relevance" in best.text
    (channels,) = found = cnnviz.tasks.top_channels(model, one.inputs[:1], "layer3", 2)
    assert f"{100 * channels[0].share:.1f} %" in shown(found).text
    matrix = shown(cnnviz.confusion_matrix(model, [(each, number) for number, each in enumerate(pictures[:2])]))
    assert len(matrix.pictures) == 1


def test_a_batch_is_shown_with_its_first_items(model: LoadedModel, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    draw_pictures(folder)
    cnnviz.batch(model, folder, ["grad_cam", "gradient"], tmp_path / "out", workers=0, backend="local", labels=None)
    page = shown(cnnviz.open_batch(tmp_path / "out"))
    assert "items by grad_cam, gradient." in page.text
    assert len(page.pictures) == 3 * 5
    first = sorted(folder.rglob("*"))
    assert "more items" in page.text
    for file in first:
        if file.is_file():
            file.unlink()
    gone = shown(cnnviz.open_batch(tmp_path / "out")["grad_cam"])
    assert "can't be read again" in gone.text


def test_a_registry_lists_its_methods_and_a_method_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in registries:
        page = shown(registry)
        assert all(name in page.text for name in registry)
        assert f'{registry.group}["' in page.text
    own: Registry[Any] = Registry("cnnviz.attributions")

    def hostile(layer: str = HOSTILE) -> Any:
        return lambda run: run.gradient("input")

    hostile.__doc__ = f"{HOSTILE}\n\n{HOSTILE}"
    own.register(cnnviz.attribution(hostile))
    assert "<script>" in shown(own).text
    assert "this process" in shown(own).text
    page = shown(own["hostile"])
    assert page.text.count("alert(2)") == 3
    assert "layer" in page.text


def test_the_summary_in_the_source_is_that_of_the_method() -> None:
    """What is told of methods that are not loaded."""
    told = {
        (registry.group, entry.name): (summary_in_source(entry.module, entry.attr), registry[entry.name].summary)
        for registry in registries
        for entry in entry_points(group=registry.group)
        if entry.dist is not None and entry.dist.name == "cnnviz"
    }
    assert len(told) > 60
    assert {name: pair for name, pair in told.items() if pair[0] != pair[1]} == {}
    assert summary_in_source("no.such.module", "name") == ""


def test_nothing_is_computed_or_changed(
    model: LoadedModel, one: Explanation, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = cnnviz.explain(model, pictures[:2], ["grad_cam", "integrated_gradients"])
    before = {name: (each.values.clone(), each.inputs.clone(), dict(vars(each))) for name, each in answer.items()}

    def forward(*_: Any) -> None:
        raise AssertionError("a notebook ran the model")

    monkeypatch.setattr(type(model.module), "forward", forward)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    state = torch.random.get_rng_state()
    assert "can't be drawn" not in shown(answer).text
    assert "not drawn" not in shown(one).text
    assert torch.equal(state, torch.random.get_rng_state())
    for name, (values, inputs, fields) in before.items():
        assert torch.equal(answer[name].values, values)
        assert torch.equal(answer[name].inputs, inputs)
        assert vars(answer[name]) == fields


def test_ipython_shows_the_bundle(one: Explanation) -> None:
    formatters = pytest.importorskip("IPython.core.formatters", reason="IPython is not installed")
    several = Explanations({"grad_cam": one})
    for answer in (one, several, several.table(), cnnviz.renderers):
        data, _ = formatters.DisplayFormatter().format(answer)
        assert data["text/plain"] == repr(answer)
        assert data["text/html"] == answer._repr_mimebundle_()["text/html"]
