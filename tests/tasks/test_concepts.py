"""Channels with most of a score, the inputs that show what they see, and the sheet and the command of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cnnviz import Preprocessing, explain, load_model, top_activations
from cnnviz.__main__ import main
from cnnviz.tasks import TopActivation, concept_sheet, receptive_field, top_channels
from cnnviz.tasks.concept_sheets import BLUR, DARK, SEEN

PLAIN = Preprocessing((0.0,) * 3, (1.0,) * 3)


@pytest.fixture
def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 3, padding=1), nn.ReLU()
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


def noise(items: int, *size: int, seed: int = 1) -> Tensor:
    return torch.rand(items, 3, *size, generator=torch.Generator().manual_seed(seed))


def parts(net: nn.Module, x: Tensor, target: int | None) -> tuple[Tensor, Tensor]:
    """Of layer 4 what each unit adds to the score: its activation times the weight of its channel; and the maps."""
    with torch.no_grad():
        maps, scores = net[:5](x[None])[0], net(x[None])[0]
        number = int(scores.argmax()) if target is None else target
        return maps * net[7].weight[number][:, None, None] / maps[0].numel(), maps


@pytest.mark.parametrize("target", [None, 2])
def test_channels_are_ranked_by_their_part_of_the_score(net: nn.Module, target: int | None) -> None:
    x = noise(3, 12, 16)
    found = top_channels(net, x, "4", 3, target=target)
    for one, channels in zip(x, found, strict=True):
        sums = parts(net, one, target)[0].sum((1, 2))
        order = sums.argsort(descending=True).tolist()[:3]
        assert [each.channel for each in channels] == order
        assert [each.relevance for each in channels] == pytest.approx(sums[order].tolist(), rel=1e-4)
        assert [each.share for each in channels] == pytest.approx((sums[order] / sums.abs().sum()).tolist(), rel=1e-4)
    assert len(top_channels(net, x, "4", 99)[0]) == 4
    with pytest.raises(ValueError, match="0 channels are asked for; ask for one or more"):
        top_channels(net, x, "4", 0)


@pytest.mark.parametrize("target", [None, 2])
def test_inputs_are_found_by_the_channels_part_of_their_score(net: nn.Module, target: int | None) -> None:
    batches = [noise(3, 12, 16, seed=1), noise(2, 16, 10, seed=2)]
    inputs = [x for batch in batches for x in batch]
    found = top_activations(net, iter(batches), "4", [1, 3], 3, by="relevance", target=target)
    for channel, best in found.items():
        divided = [parts(net, x, target) for x in inputs]
        sums = [float(relevance[channel].sum()) for relevance, _ in divided]
        right = [number for number in np.argsort(sums)[::-1].tolist() if sums[number] > 0][:3]
        assert [each.number for each in best] == right
        for each in best:
            relevance, maps = divided[each.number]
            assert each.relevance == pytest.approx(sums[each.number], rel=1e-4)
            assert each.at == np.unravel_index(int(relevance[channel].argmax()), relevance.shape[1:])
            assert each.activation == pytest.approx(float(maps[channel][each.at]), rel=1e-5)
            assert torch.equal(each.input, inputs[each.number])
    assert any(found.values())


def test_what_does_not_go_together_is_refused(net: nn.Module) -> None:
    x = noise(1, 8, 8)
    with pytest.raises(ValueError, match="target is about relevance, and inputs are sought by activation"):
        top_activations(net, x, "4", [0], target=1)
    with pytest.raises(ValueError, match="there is no by='size'; it is 'activation' or 'relevance'"):
        top_activations(net, x, "4", [0], by="size")  # type: ignore[arg-type]  # is refused
    with pytest.raises(ValueError, match="there is no channel 4 in layer '4'; it has 4, numbered 0 to 3"):
        top_activations(net, x, "4", [4], by="relevance")
    with pytest.raises(ValueError, match="channels are explained in one picture, and 2 are given"):
        concept_sheet(net, "4", {0: []}, noise(2, 8, 8))


def test_a_sheet_lights_what_the_channel_uses(net: nn.Module) -> None:
    x = noise(1, 112, 112)
    x[..., :39] = 0
    found = {1: [TopActivation(0, x[0], (20, 20), 1.0, 2.0)]}
    drawn = concept_sheet(net, "4", found, preprocessing=PLAIN, target=0)
    field = receptive_field(net, x, "4", (20, 20), 1)
    values = explain(net, x, "conditional_relevance", layer="4", channels=1, target=0).values.sum(1)[0]
    sigma = BLUR * 112
    radius = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    heat = values.numpy()
    for axis in (0, 1):  # the borders go on
        pads = [(radius, radius) if dim == axis else (0, 0) for dim in (0, 1)]
        heat = np.apply_along_axis(lambda line: np.convolve(line, kernel, "valid"), axis, np.pad(heat, pads, "edge"))
    lit = (heat > SEEN * heat.max())[..., None]
    picture = x[0].movedim(0, -1).numpy()
    expected = np.round(np.where(lit, picture, DARK * picture)[field] * 255).astype(np.uint8)
    assert lit[field].any()
    assert not lit[field].all()
    tile = expected.repeat(28, 0).repeat(28, 1)  # as wide as a caption
    rows, columns = drawn.shape[0] - len(tile) - 10, (drawn.shape[1] - len(tile)) // 2
    np.testing.assert_array_equal(drawn[rows:, columns:][: len(tile), : len(tile)], tile)


def test_a_sheet_has_a_row_for_each_channel(net: nn.Module) -> None:
    x = noise(3, 24, 24)
    found = top_activations(net, x, "4", [1, 3], 3, by="relevance", target=2)
    alone, beside = concept_sheet(net, "4", found), concept_sheet(net, "4", found, x[:1], target=2)
    assert beside.shape[1] > alone.shape[1] + 200
    empty = concept_sheet(net, "4", {1: []}, x[:1])
    assert empty.shape[0] < beside.shape[0]


def test_excite_shows_the_channels_that_decided_a_picture(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    files = sorted(pictures.iterdir())
    asked = ["excite", str(pictures), "--layer", "layer2", "--count", "1"]
    settings = ["--composite", "epsilon_gamma_box", "--gamma", "0.5", "-o", "out.png"]
    assert main([*asked, "--by", "relevance", "--picture", str(files[0]), "--top", "2", *settings]) == 0
    model, of = load_model("demo"), {"composite": "epsilon_gamma_box", "gamma": 0.5}
    inputs = [model.preprocessing(Image.open(file))[None] for file in files]
    (best,) = top_channels(model, inputs[0], "layer2", 2, **of)
    found = top_activations(model, inputs, "layer2", [each.channel for each in best], 1, by="relevance", **of)
    lines = [
        f"out.png: f:{channel} " + ", ".join(f"{files[one.number].name} {one.relevance:.4g}" for one in row)
        for channel, row in found.items()
    ]
    assert capsys.readouterr().out.splitlines() == lines
    drawn = concept_sheet(model, "layer2", found, inputs[0], **of)
    np.testing.assert_array_equal(np.asarray(Image.open("out.png")), drawn)
    for more, said in (
        ([], "no channels are asked for; add --channels 5,9, or a --picture whose channels are sought"),
        (["--channels", "3", "--target", "1"], "--target is about relevance; add --by relevance, or a --picture"),
        (["--channels", "3", "--by", "relevance", "-m", "deconvnet"], "--method is for projections, and by relevance"),
        (["--picture", "none.png"], "no file 'none.png'"),
        (["--channels", "3", "--top", "2"], "--top is how many channels of a --picture are sought"),
        (["--picture", str(pictures)], "is a folder, not a picture"),
        (["--channels", "3", "--picture", str(files[0]), "--bias", "report"], "is absorb or ignore, not 'report'"),
    ):
        assert main([*asked, *more, "-o", "other.png"]) == 2
        assert said in capsys.readouterr().err
        assert not Path("other.png").exists()


def test_excite_names_the_layer_that_it_finds(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[object] = []
    monkeypatch.setattr(
        "cnnviz.tasks.concept_sheets.concept_sheet",
        lambda model, layer, found, picture, **options: asked.append((layer, list(found))) or np.zeros((4, 4, 3), "u1"),
    )
    picture = sorted(pictures.iterdir())[0]
    model = load_model("demo")
    (best,) = top_channels(model, model.preprocessing(Image.open(picture))[None], None, 2)
    one = ["excite", str(picture), "--picture", str(picture), "--count", "1", "-o", "out.png"]
    assert main([*one, "--top", "2"]) == 0
    assert main([*one, "--channels", "5", "--overwrite"]) == 0
    assert asked == [("layer3", [each.channel for each in best]), ("layer3", [5])]
    assert main(["excite", str(picture), "--by", "relevance", "--channels", "5", "-o", "other.png"]) == 2
    assert "no layer is named, and the last one may differ from picture to picture" in capsys.readouterr().err
    assert not Path("other.png").exists()
