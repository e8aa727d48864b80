"""What explain returns, in the hands of NumPy, matplotlib and files: one explanation, and several."""

from __future__ import annotations

import io
import itertools
import pickle
from base64 import b64decode
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import cnnviz
from cnnviz import Explanation, LoadedModel, Preprocessing, demo, explain, load_model
from cnnviz.explanations import ExplanationList, Explanations, JointExplanation, curves, evidence, joined
from cnnviz.targets import several, top

PLAIN = Preprocessing((0.0,) * 3, (1.0,) * 3)


def made(values: Any, score: Any = (12.314,), **more: Any) -> Explanation:
    """An explanation of black pictures 4 x 6."""
    tensor = torch.as_tensor(values, dtype=torch.float32)
    fields = {"target": torch.zeros(len(tensor), dtype=torch.int64), "preprocessing": PLAIN} | more
    return Explanation(
        values=tensor, inputs=torch.zeros(len(tensor), 3, 4, 6), score=torch.tensor(score), recipe="cam()", **fields
    )


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model("demo")


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return demo.as_inputs(demo.pictures().pictures[:2])


def test_a_heat_map_is_evidence_over_its_own_peak() -> None:
    answer = made([[[[-4.0, 0.0], [1.0, 2.0]]], [[[0.0, 0.0], [0.0, 0.0]]]], (1.0, 2.0))
    heat = answer.heatmap()
    assert heat.dtype == np.float32
    assert heat.shape == (2, 4, 6)
    whole = evidence(answer).numpy()
    np.testing.assert_allclose(heat[0], whole[0] / whole[0].max(), rtol=1e-6)
    assert heat[0].min() == 0
    assert heat[0].max() == 1
    assert not heat[1].any(), "a blank map stays blank"
    signed = answer.heatmap("signed")
    np.testing.assert_allclose(signed[0], evidence(answer, "signed")[0].numpy() / 4, rtol=1e-6)
    assert signed[0, 0, 0] == -1


def test_a_heat_map_lies_in_the_original_where_the_input_does(model: LoadedModel, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 100, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    cropped = Preprocessing((0.5,) * 3, (0.5,) * 3, 48, (48, 48))
    answer = explain(model.module, tmp_path / "wide.png", "grad_cam", preprocessing=cropped)
    (heat,) = answer.heatmap(at="original")
    assert (heat.shape, heat.dtype, heat.max()) == ((60, 100), np.float32, 1)
    assert not heat[:, :20].any()
    assert not heat[:, 80:].any()
    single = answer.values.relu()
    placed = torch.nn.functional.interpolate(single, (60, 60), mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(heat[:, 20:80], placed / placed.max(), atol=1e-5)
    axes = answer.plot(at="original")
    np.testing.assert_array_equal(axes.images[0].get_array(), pixels)
    np.testing.assert_allclose(axes.images[1].get_array()[:, 20:80], placed, atol=1e-5)


def test_an_explanation_is_an_array_of_its_raw_values() -> None:
    answer = made([[[[-4.0, 0.0], [1.0, 2.0]]]])
    np.testing.assert_array_equal(np.asarray(answer), answer.values.numpy())
    assert np.asarray(answer, dtype=np.float64).dtype == np.float64
    copied = np.array(answer)
    copied[:] = 7
    assert answer.values.min() == -4
    halved = answer.to(torch.bfloat16)
    assert halved.values.dtype == torch.bfloat16
    assert halved.inputs.dtype == torch.float32
    assert halved.numpy().dtype == np.float32
    with pytest.raises(ValueError, match=r"torch.int64 would be rounded to whole numbers"):
        answer.to(torch.int64)
    moved = answer.to("meta")
    assert all(
        tensor.is_meta for tensor in (moved.values, moved.inputs, moved.score, moved.target) if tensor is not None
    )


def test_a_plot_shows_the_heat_in_units_of_the_values() -> None:
    answer = made([[[[-4.0, 0.0], [1.0, 2.0]]]])
    axes = Figure().subplots(1, 2)
    assert answer.plot(axes[0], sign="signed") is axes[0]
    picture, heat = axes[0].images
    np.testing.assert_array_equal(picture.get_array(), np.zeros((4, 6, 3), np.uint8))
    np.testing.assert_allclose(heat.get_array(), evidence(answer, "signed")[0], rtol=1e-6)
    assert (heat.get_clim(), heat.get_cmap().name) == ((-4, 4), "RdBu_r")
    np.testing.assert_allclose(heat.get_alpha(), 0.8 * evidence(answer, "signed")[0].abs() / 4, rtol=1e-6)
    assert axes[0].get_title() == "class 0 12.31"
    magma = matplotlib.colormaps["magma"]
    answer.plot(axes[1], "heatmap", colormap=magma, title=False)
    np.testing.assert_array_equal(axes[1].images[0].get_array(), answer.render("heatmap", colormap="magma")[0])
    assert axes[1].get_title() == ""


@pytest.mark.parametrize("renderer", ["heatmap", "overlay", "diverging", "boxes", "panels", "confusion_matrix"])
def test_renderers_take_colour_maps_as_objects(renderer: str) -> None:
    maps = 4 if renderer == "confusion_matrix" else 1
    answer = made(torch.arange(4.0 * maps).view(1, maps, 2, 2), boxes=torch.tensor([[[1.0, 1.0, 3.0, 3.0]]]))
    cividis = matplotlib.colormaps["cividis"]
    np.testing.assert_array_equal(
        answer.render(renderer, colormap=cividis), answer.render(renderer, colormap="cividis")
    )
    assert repr(cnnviz.renderers[renderer](colormap=cividis)) == f"{renderer}(colormap='cividis')"
    with pytest.raises(TypeError, match="a colour map is a name or a matplotlib Colormap, not a int"):
        answer.render(renderer, colormap=5)


def test_plots_use_no_pyplot() -> None:
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    answer = made([[[[0.0, 1.0]]]] * 3, (1.0, 2.0, 3.0))
    figure = answer.figure(columns=2)
    drawn = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in drawn] == ["class 0 1.00", "class 0 2.00", "class 0 3.00"]
    assert len(figure.axes) == 6, "each has a colour bar"
    assert answer[0].plot().figure is not figure
    assert pyplot.get_fignums() == before
    assert figure._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="plot draws one input, and the explanation has 3"):
        answer.plot()
    with pytest.raises(TypeError, match="plot has no setting 'blend'"):
        answer[0].plot(blend="sum")


@pytest.mark.parametrize("kind", ["npy", "npz", "pdf", "svg"])
def test_an_explanation_is_saved_for_other_programs(tmp_path: Path, kind: str) -> None:
    answer = made([[[[-4.0, 0.0], [1.0, 2.0]]]], categories=("tiger cat",), probability=torch.tensor([0.5]))
    (file,) = answer.save(tmp_path / f"kept.{kind}")
    if kind == "npy":
        np.testing.assert_array_equal(np.load(file), answer.values)
    elif kind == "npz":
        kept = np.load(file)
        assert set(kept) == {"values", "inputs", "score", "target", "probability", "names", "recipe"}
        np.testing.assert_array_equal(kept["inputs"], answer.inputs)
        assert (kept["names"].tolist(), str(kept["recipe"])) == (["tiger cat"], "cam()")
    else:
        assert file.read_bytes().startswith(b"%PDF" if kind == "pdf" else b"<?xml")
        assert kind == "pdf" or b"tiger cat 12.31 (50 %)" in file.read_bytes()


def test_inputs_can_be_left_out_of_a_file(tmp_path: Path) -> None:
    answer = made(torch.rand(2, 1, 2, 3), (1.0, 2.0))
    (whole,), (small,) = (
        answer.save(tmp_path / "whole.safetensors"),
        answer.save(tmp_path / "s.safetensors", inputs=False),
    )
    assert whole.stat().st_size - small.stat().st_size > answer.inputs.nbytes - 200
    read = Explanation.load(small)
    np.testing.assert_array_equal(read.heatmap(), answer.heatmap())
    np.testing.assert_array_equal(read.render("heatmap"), answer.render("heatmap"))
    assert len(read[0].plot().images) == 1, "the map alone"
    for use in (
        read.render,
        lambda: cnnviz.grid({"a": read}),
        lambda: cnnviz.evaluate(read, "deletion", model=torch.nn.Identity().eval()),
    ):
        with pytest.raises(
            ValueError, match=r"the inputs of cam\(\) were not saved \(inputs=False\), and are needed here"
        ):
            use()
    assert Explanation.load(read.save(tmp_path / "again.safetensors")[0]).inputs.shape == answer.inputs.shape


def test_titles_tell_a_probability_where_it_is_known() -> None:
    named: dict[str, Any] = {"categories": ("tiger cat", "dog")}
    for share, told in {
        0.984: "98 %",
        0.012: "1.2 %",
        0.0004: "< 0.1 %",
        0.0: "0 %",
        1.0: "100 %",
        0.0996: "10 %",
    }.items():
        answer = made([[[[1.0]]]], probability=torch.tensor([share]), **named)
        assert answer.titles() == [f"tiger cat 12.31 ({told})"]
    assert made([[[[1.0]]]], (0.25,), probability=torch.tensor([0.25]), **named).titles() == ["tiger cat 0.25"]
    assert made([[[[1.0]]]], probability=torch.tensor([0.25])).titles() == ["class 0 12.31"], "may be no classes at all"


def test_the_probability_is_the_softmax_of_the_scores(model: LoadedModel, pictures: torch.Tensor) -> None:
    answer = explain(model, pictures, "gradient", target=1)
    with torch.no_grad():
        shares = model.module(pictures).softmax(1)[:, 1]
    assert answer.probability is not None
    torch.testing.assert_close(answer.probability, shares)
    table = explain(model, pictures, ["gradient"], target=1).table()
    assert [row["probability"] for row in table] == pytest.approx(shares.tolist())
    # numbers without names may be of no classes, and the softmax of a regression tells nothing
    nameless = explain(model.module, pictures, ["gradient"], target=1).table()
    assert [row["probability"] for row in nameless] == [None] * len(pictures)


def test_several_methods_are_a_dict_that_draws_and_tells_itself(model: LoadedModel, pictures: torch.Tensor) -> None:
    answers = explain(model, pictures, ["grad_cam", "gradient"])
    assert isinstance(answers, dict)
    assert list(answers) == ["grad_cam", "gradient"]
    assert np.array_equal(np.asarray(answers.grid()), cnnviz.grid(answers))
    one = explain(model, pictures[:1], ["grad_cam", "gradient"])
    drawn = Image.open(io.BytesIO(b64decode(one._repr_mimebundle_(include=["image/png"])["image/png"])))
    assert np.array_equal(np.asarray(drawn), cnnviz.grid(one))
    table = answers.table()
    assert [(row["input"], row["method"]) for row in table] == [
        (0, "grad_cam"),
        (0, "gradient"),
        (1, "grad_cam"),
        (1, "gradient"),
    ]
    assert [row["score"] for row in table[::2]] == answers["grad_cam"].score.tolist()
    assert str(table).splitlines()[0].split() == ["input", "method", "class", "score", "probability"]
    assert repr(answers).splitlines()[0] == "Explanations of 2 methods:"
    assert answers["grad_cam"].titles()[1] in repr(answers)
    assert type(pickle.loads(pickle.dumps(answers))) is Explanations


def test_the_top_classes_are_a_list_that_draws_and_tells_itself(model: LoadedModel, pictures: torch.Tensor) -> None:
    answers = explain(model, pictures, "grad_cam", target=top(3))
    assert isinstance(answers, list)
    assert len(answers) == 3
    assert [row["class"] for row in answers.table()][:3] == [each.names()[0] for each in answers]
    assert answers.grid().size[1] == cnnviz.grid(answers).shape[0]
    both = explain(model, pictures, ["grad_cam", "gradient"], target=several(0, 1))
    assert [row["method"] for row in both.table()][:4] == ["grad_cam", "grad_cam", "gradient", "gradient"]
    assert both.grid().size == cnnviz.grid(both).shape[1::-1]


def test_several_are_saved_and_read_at_once(model: LoadedModel, pictures: torch.Tensor, tmp_path: Path) -> None:
    answers = explain(model, pictures, ["grad_cam", "gradient"], target=top(2))
    (file,) = answers.save(tmp_path / "kept.safetensors")
    assert file.stat().st_size < 5 * pictures.nbytes, "equal inputs are kept once"
    read = Explanations.load(file)
    assert list(read) == list(answers)
    assert type(read["gradient"]) is ExplanationList
    for name, each in answers.items():
        for one, kept in zip(each, read[name], strict=True):
            assert torch.equal(one.values, kept.values)
            assert torch.equal(one.inputs, kept.inputs)
            assert one.titles() == kept.titles()
    assert len(ExplanationList.load(answers["gradient"].save(tmp_path / "list.safetensors")[0])) == 2
    with pytest.raises(
        ValueError, match=r"holds several explanations; read it by cnnviz.explanations.Explanations.load"
    ):
        Explanation.load(file)
    with pytest.raises(ValueError, match=r"was saved by Explanations; read it by"):
        ExplanationList.load(file)
    with pytest.raises(ValueError, match="holds no several explanations that cnnviz saved"):
        Explanations.load(answers["gradient"][0].save(tmp_path / "one.safetensors")[0])
    assert Explanations.load(answers.save(tmp_path / "small.safetensors", inputs=False)[0])["gradient"][
        1
    ].inputs.is_meta


def test_several_are_saved_as_pictures(model: LoadedModel, pictures: torch.Tensor, tmp_path: Path) -> None:
    formula = cnnviz.gradient() * cnnviz.image()
    answers = explain(model, pictures, ["grad_cam", formula])
    names = [file.name for file in answers.save(tmp_path / "maps")]
    assert names[:2] == ["grad_cam-0.png", "grad_cam-1.png"]
    assert len(set(names)) == 4
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "maps" / names[1])), answers["grad_cam"].render()[1])
    (sheet,) = answers.save(tmp_path / "sheet.png")
    np.testing.assert_array_equal(np.asarray(Image.open(sheet)), cnnviz.grid(answers))
    with pytest.raises(ValueError, match=r"maps.gif has no suffix that can be written; use .safetensors"):
        answers.save(tmp_path / "maps.gif")


def test_batches_are_joined(model: LoadedModel, pictures: torch.Tensor) -> None:
    whole = explain(model, pictures, "gradient", target=1)
    parts = joined(
        [explain(model, pictures[:1], "gradient", target=1), explain(model, pictures[1:], "gradient", target=1)]
    )
    torch.testing.assert_close(parts.values, whole.values)
    assert parts.titles() == whole.titles()


def test_a_grid_of_many_inputs_is_nearly_a_square() -> None:
    answer = made(torch.rand(64, 1, 2, 3), tuple(range(64)))
    height, width, _ = cnnviz.grid({"cam": answer}).shape
    assert 0.4 < height / width < 2.5
    narrow = cnnviz.grid({"cam": answer}, columns=2)
    assert narrow.shape[0] > 20 * narrow.shape[1]
    assert cnnviz.grid({"cam": answer}, columns=16).shape[1] > 7 * narrow.shape[1]


def test_a_data_frame_needs_pandas(model: LoadedModel, pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ImportError, match="a DataFrame needs the package pandas"):
        explain(model, pictures, ["gradient"]).to_dataframe()


def test_inputs_explained_together_are_saved_among_others(tmp_path: Path) -> None:
    part = made([[[[1.0]]]])
    answers = Explanations({"cam": JointExplanation([part, part])})
    read = Explanations.load(answers.save(tmp_path / "joint.safetensors")[0])
    assert type(read["cam"]) is JointExplanation
    assert len(read["cam"]) == 2


def test_several_methods_are_evaluated_in_one_table(model: LoadedModel, pictures: torch.Tensor) -> None:
    answers = explain(model, pictures, ["grad_cam", "gradient"], target=1)
    found = cnnviz.evaluate(answers, ["insertion"], model=model, step=0.25)
    for name, each in answers.items():
        torch.testing.assert_close(found[name]["insertion"], cnnviz.evaluate(each, "insertion", model=model, step=0.25))
    first, second = found["gradient"]["insertion"].tolist()
    row = found.table()[1]
    assert (row["method"], row["pictures"], row["blank"]) == ("gradient", 2, 0)
    assert row["insertion"] == pytest.approx((first + second) / 2)
    assert row["insertion_error"] == pytest.approx(abs(first - second) / 2), "of two numbers"
    assert [(row["input"], row["method"]) for row in found.each()][:2] == [(0, "grad_cam"), (0, "gradient")]
    assert " ± " in repr(found)
    assert pickle.loads(pickle.dumps(found)).table() == found.table()
    with pytest.raises(TypeError, match="evaluate takes an explanation, or several by name, not a ExplanationList"):
        cnnviz.evaluate(explain(model, pictures, "gradient", target=top(1)), "insertion", model=model)  # type: ignore[call-overload]


def test_blank_maps_are_counted_and_can_be_left_out() -> None:
    half = made([[[[0.0, 1.0]]], [[[0.0, 0.0]]]], (1.0, 2.0))
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[:, :, 3:] = True
    found = cnnviz.evaluate({"cam": half}, "pointing_game", masks=masks)
    assert found.blank["cam"].tolist() == [False, True]
    assert found.table() == [
        {"method": "cam", "pictures": 2, "blank": 1, "pointing_game": 0.5, "pointing_game_error": 0.5}
    ]
    assert found.table(drop_blank=True)[0]["pointing_game"] == 1
    assert found.table(drop_blank=True)[0]["pointing_game_error"] is None


@pytest.mark.parametrize("metric", ["insertion", "deletion"])
def test_the_area_under_a_curve_is_the_metric(model: LoadedModel, pictures: torch.Tensor, metric: str) -> None:
    answer = explain(model, pictures, "grad_cam", target=1)
    curve = curves(answer, metric, model=model, step=0.25)
    number = cnnviz.evaluate(answer, metric, model=model, step=0.25)
    assert curve.shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
    for each, area in zip(curve.scores.tolist(), number.tolist(), strict=True):
        trapezoids = [0.25 * (left + right) / 2 for left, right in itertools.pairwise(each)]
        assert sum(trapezoids) == pytest.approx(area)
    assert answer.probability is not None
    whole = curve.scores[:, -1 if metric == "insertion" else 0]
    torch.testing.assert_close(whole.float(), answer.probability, msg="the input as it is")
    axes = curve.plot()
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), curve.scores[1])
    assert [line.get_label() for line in axes.lines] == answer.titles()


@pytest.mark.parametrize("order", ["difference", "most"])
def test_the_mean_of_a_curve_is_road(model: LoadedModel, pictures: torch.Tensor, order: str) -> None:
    answers = explain(model, pictures[:1], ["grad_cam"], target=1)
    curve = curves(answers, "road", model=model, step=0.4, order=order)["grad_cam"]
    torch.testing.assert_close(curve.shares, torch.tensor([0.4, 0.8], dtype=torch.float64), atol=1e-3, rtol=0)
    number = cnnviz.evaluate(answers["grad_cam"], "road", model=model, step=0.4, order=order)
    torch.testing.assert_close(curve.scores.mean(1), number)
    torch.testing.assert_close(curve.number, number)


def test_a_metric_without_a_curve_says_so() -> None:
    with pytest.raises(ValueError, match="sparseness has no curve; insertion, deletion and road have one"):
        curves(made([[[[0.0, 1.0]]]]), "sparseness")


def test_one_input_is_chosen_by_numbers_of_other_libraries_too() -> None:
    inputs = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    answer = cnnviz.explain(cnnviz.load_model("demo").module, inputs, "grad_cam")
    for number in (np.int64(1), torch.tensor(1), -2):
        assert answer[number].values.shape == (1, *answer.values.shape[1:])
        assert torch.equal(answer[number].values[0], answer.values[1])
    with pytest.raises(IndexError, match="there is no input 3"):
        answer[np.int64(3)]
    with pytest.raises(TypeError, match="by its number or a slice, not by a list"):
        answer[[0, 2]]  # type: ignore[index]
    assert repr(answer[5:]) == f"Explanation({answer.recipe} of no inputs)"


def test_plot_understands_matplotlibs_words() -> None:
    answer = cnnviz.explain(cnnviz.load_model("demo").module, torch.randn(1, 3, 32, 32), "grad_cam")
    with pytest.raises(TypeError, match="no setting 'cmap'; did you mean 'colormap'"):
        answer.plot(cmap="jet")
    with pytest.raises(TypeError, match="no setting 'alpha'; did you mean 'opacity'"):
        answer.plot(alpha=0.5)


@pytest.mark.parametrize("kind", [list, torch.tensor, np.array])
def test_targets_of_a_data_loader_are_one_for_each_input(kind: Any) -> None:
    inputs = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = load_model("demo").module
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs), batch_size=2)
    answer = explain(model, loader, "grad_cam", target=kind([3, 1, 0, 2]))
    assert answer.target is not None
    assert answer.target.tolist() == [3, 1, 0, 2]
    for wrong in ([3, 1, 0], [3, 1, 0, 2, 2]):
        with pytest.raises(ValueError, match=f"there are {len(wrong)} targets for 4 inputs"):
            explain(model, loader, "grad_cam", target=kind(wrong))
