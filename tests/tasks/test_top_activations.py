"""What excites a channel most is found in one pass over everything, and shown as the paper's figure shows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms as T

from cnnviz import (
    Preprocessing,
    attributions,
    confusion_matrix,
    demo,
    explain,
    load_model,
    synthesize,
    top_activations,
)
from cnnviz.__main__ import main
from cnnviz.objectives import strongest
from cnnviz.tasks import TopActivation, patch_sheet, receptive_field
from cnnviz.tasks.activation_crops import GRAY, TILE


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 3, padding=1), nn.ReLU()
    return nn.Sequential(*layers, nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten()).eval()


def noise(items: int, *size: int, seed: int = 1) -> Tensor:
    return torch.randn(items, 3, *size, generator=torch.Generator().manual_seed(seed))


def test_the_best_of_all_batches_are_found_whatever_their_sizes(net: nn.Module) -> None:
    batches = [noise(4, 16, 20, seed=1), noise(3, 24, 12, seed=2), noise(5, 16, 20, seed=3)]
    expected: dict[int, list[tuple[float, int, tuple[int, ...]]]] = {2: [], 0: []}
    number = 0
    with torch.no_grad():
        for x in (x for batch in batches for x in batch):
            maps = net[:5](x[None])[0]
            for channel, found in expected.items():
                places = [(float(value), at) for at, value in np.ndenumerate(maps[channel].numpy())]
                value, at = max(places, key=lambda each: each[0])
                found.append((value, number, at))
            number += 1
    found = top_activations(net, iter(batches), "4", [2, 0], count=4)
    inputs = [x for batch in batches for x in batch]
    assert list(found) == [2, 0]
    for channel, best in found.items():
        right = sorted(expected[channel], key=lambda each: -each[0])[:4]
        assert [(each.number, each.at) for each in best] == [(number, at) for _, number, at in right]
        assert [each.activation for each in best] == pytest.approx([value for value, _, _ in right], rel=1e-5)
        assert all(torch.equal(each.input, inputs[each.number]) for each in best)


def test_passes_end_at_the_layer(net: nn.Module) -> None:
    met: list[int] = []
    net[7].register_forward_hook(lambda module, args, output: met.append(len(output)))
    found = top_activations(net, [noise(2, 8, 8), noise(3, 8, 8), noise(4, 8, 8)], "1", [0])
    assert met == [2]  # the first pass counts the layer's calls
    assert len(found[0]) == 9


def test_what_stays_at_zero_is_not_excited(net: nn.Module) -> None:
    with torch.no_grad():
        net[3].weight[1], net[3].bias[1] = 0.0, -1.0
    assert top_activations(net, [noise(3, 8, 8)], "4", [1, 2])[1] == []
    assert top_activations(net, [], "4", [1]) == {1: []}


def test_signals_volumes_and_features_are_searched_too() -> None:
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)).eval()
    x = torch.randn(5, 2, 12, generator=torch.Generator().manual_seed(0))
    scores = net(x).detach()
    best = top_activations(net, [x], "3", [1], count=1)[1]
    assert [(each.number, each.at) for each in best] == [(int(scores[:, 1].argmax()), ())]
    found = top_activations(net, [x], "1", [2], count=2)
    assert all(len(each.at) == 1 for each in found[2])
    with pytest.raises(ValueError, match=r"patch_sheet draws images, and the inputs are \(2, 12\); crop signals"):
        patch_sheet(net, "1", found)


def test_what_there_is_not_is_told(net: nn.Module) -> None:
    with pytest.raises(ValueError, match="there is no channel 4 in layer '4'; it has 4, numbered 0 to 3"):
        top_activations(net, [noise(1, 8, 8)], "4", [4])
    with pytest.raises(LookupError, match="Sequential has no layer 'conv'; it starts with 0, 1"):
        top_activations(net, [noise(1, 8, 8)], "conv", [0])
    for channels, count in (([], 9), ([0], 0)):
        with pytest.raises(ValueError, match=f"{count} inputs of {len(channels)} channels are asked for"):
            top_activations(net, [noise(1, 8, 8)], "4", channels, count)


# The figure


PLAIN = Preprocessing((0.0,) * 3, (1.0,) * 3)


def tiles(sheet: np.ndarray[Any, Any], count: int) -> list[np.ndarray[Any, Any]]:
    """Of a sheet of one channel: crops in a row, then projections, each of ``TILE`` pixels or a little less."""
    inside = (sheet != 255).any(-1)
    rows = np.flatnonzero(inside[LABELS:].any(1)) + LABELS
    columns = np.flatnonzero(inside[rows].any(0))
    parts = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    assert len(parts) == count
    return [sheet[rows[0] : rows[-1] + 1, part[0] : part[-1] + 1] for part in parts]


LABELS = 33  # pixels: what is written above


def test_crops_are_what_the_unit_sees_filled_up_with_gray_at_the_border(net: nn.Module) -> None:
    x = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 0.9
    field = receptive_field(net, x, "4", (6, 6), 1)
    corner = receptive_field(net, x, "4", (0, 11), 1)
    assert field == (slice(9, 17), slice(9, 17))
    assert corner == (slice(0, 5), slice(19, 24))
    found = {1: [TopActivation(0, x[0], (6, 6), 2.0), TopActivation(1, x[1], (0, 11), 1.0)]}
    inner, outer, *_ = tiles(patch_sheet(net, "4", found, preprocessing=PLAIN), 4)
    pixels = (x.movedim(1, -1) * 255).round().numpy().astype(np.uint8)
    factor = TILE // 8
    np.testing.assert_array_equal(inner, pixels[0, 9:17, 9:17].repeat(factor, 0).repeat(factor, 1))
    assert (outer[: 3 * factor] == GRAY).all()  # above the picture
    assert (outer[:, 5 * factor :] == GRAY).all()  # right of it
    np.testing.assert_array_equal(
        outer[3 * factor :, : 5 * factor], pixels[1, :5, 19:].repeat(factor, 0).repeat(factor, 1)
    )


def test_projections_are_cropped_alike(net: nn.Module) -> None:
    x = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 0.9
    best = top_activations(net, [x], "4", [1], count=1)
    (one,) = best[1]
    field = receptive_field(net, x, "4", one.at, 1)
    values = explain(net, x, "deconvnet", target=strongest("4", 1)).values[(0, slice(None), *field)]
    crop, projected = tiles(patch_sheet(net, "4", best, preprocessing=PLAIN), 2)
    assert crop.shape == projected.shape
    factor = projected.shape[0] // values.shape[1]
    small = projected[::factor, ::factor].astype(float) - 127.5
    strong = values.abs() > 0.2 * values.abs().max()
    assert strong.any()
    np.testing.assert_array_equal(
        np.sign(small)[strong.permute(1, 2, 0).numpy()], values.sign().permute(1, 2, 0)[strong.permute(1, 2, 0)].numpy()
    )


def test_channels_stand_below_each_other_in_squares(net: nn.Module) -> None:
    found = top_activations(net, [noise(9, 24, 24)], "4", [0, 2], count=9)
    one, both = patch_sheet(net, "4", {0: found[0]}), patch_sheet(net, "4", found)
    assert one.shape[1] > 6 * 100  # three crops and three projections
    assert both.shape[0] == pytest.approx(2 * one.shape[0], rel=0.05)
    empty = patch_sheet(net, "4", {0: found[0], 1: []})
    assert one.shape[0] < empty.shape[0] < both.shape[0]


def test_coarse_maps_are_refused(net: nn.Module) -> None:
    found = top_activations(net, [noise(2, 24, 24)], "4", [0])
    said = "grad_cam(layer='2') gives a map of (12, 12) for (24, 24), too coarse to be cropped"
    with pytest.raises(ValueError, match=re.escape(said)):
        patch_sheet(net, "4", found, attributions["grad_cam"](layer="2"))


# The commands


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn pictures by their shape's name."""
    made = tmp_path_factory.mktemp("pictures")
    for name, picture in zip(demo.CATEGORIES, demo.pictures().pictures, strict=False):
        Image.fromarray(picture).save(made / f"{name}.png")
    return made


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def fails(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    """Run what must fail and write nothing; the one line it tells."""

    def written() -> list[Path]:
        return sorted(path for path in Path.cwd().rglob("*") if "__pycache__" not in path.parts)

    before = written()
    assert main([str(arg) for arg in args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert written() == before
    return line.removeprefix("cnnviz: ")


def test_excite_draws_a_row_for_each_channel_and_names_the_pictures(
    folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["excite", str(folder), "--layer", "layer2", "--channels", "3,7", "--count", "4", "-o", "out.png"]) == 0
    said = capsys.readouterr()
    files = sorted(folder.iterdir())
    model = load_model("demo")
    inputs = torch.stack([prepared(file, model.preprocessing) for file in files])
    found = top_activations(model, [inputs], "layer2", [3, 7], 4)
    expected = [", ".join(f"{files[each.number].name} {each.activation:.4g}" for each in row) for row in found.values()]
    assert said.out.splitlines() == [f"out.png: f:3 {expected[0]}", f"out.png: f:7 {expected[1]}"]
    assert said.err == ""
    drawn = patch_sheet(model, "layer2", found)
    np.testing.assert_array_equal(np.asarray(Image.open(here / "out.png")), drawn)


def prepared(file: Path, preprocessing: Preprocessing) -> Tensor:
    with Image.open(file) as picture:
        return preprocessing(picture)


def test_excite_names_what_it_cannot_read_and_goes_on(
    folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = here / "pictures"
    pictures.mkdir()
    for file in sorted(folder.iterdir())[:3]:
        (pictures / file.name).write_bytes(file.read_bytes())
    (pictures / "broken.png").write_bytes(b"no picture")
    assert main(["excite", "pictures", "--channel", "0", "--layer", "relu", "-o", "out.png", "-q"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("cnnviz: 'pictures/broken.png' is not a picture that can be read")
    assert (here / "out.png").exists()
    for file in pictures.iterdir():
        file.write_bytes(b"no picture")
    (here / "out.png").unlink()
    assert main(["excite", "pictures", "--channel", "0", "--layer", "relu", "-o", "out.png"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 4
    assert not (here / "out.png").exists()


def test_excite_tells_what_is_wrong_in_one_line(folder: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*args: str | Path) -> str:
        return fails(capsys, "excite", *args)

    (here / "empty").mkdir()
    assert told("empty", "--channels", "0").startswith("folder 'empty' holds no pictures")
    wrong = "there is no channel 48 in layer 'layer2'; it has 48, numbered 0 to 47"
    assert told(folder, "--layer", "layer2", "--channels", "48") == wrong
    wrong = "DemoNet has no layer 'leyer2'; did you mean 'layer2'?"
    assert told(folder, "--layer", "leyer2", "--channels", "1") == wrong
    assert told(folder, "--channels", "x") == "--channels is numbers with commas between, such as 5,9, not 'x'"
    assert told(folder, "--channels", "1", "-o", "out.xyz").startswith("out.xyz has no suffix of a picture")
    wrong = "there is no option --smoth for deconvnet; did you mean --smooth?"
    assert told(folder, "--channels", "1", "--smoth") == wrong
    assert "too coarse to be cropped" in told(folder, "--channels", "1", "--method", "grad_cam", "--layer", "layer3")


def test_project_draws_channels_beside_the_picture(
    folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    star = folder / "star.png"
    assert main(["project", str(star), "--layer", "layer2", "--channels", "3,7", "-o", "out.png"]) == 0
    assert capsys.readouterr().out.startswith("out.png: star ")
    shown = explain(load_model("demo"), star, "projections", layer="layer2", channels=(3, 7))
    np.testing.assert_array_equal(np.asarray(Image.open(here / "out.png")), shown.render()[0])
    units = ["--unit", "--top", "5", "--columns", "2"]
    assert main(["project", str(star), "--layer", "layer2", *units, "-o", "tall.png"]) == 0
    assert size_of(here / "tall.png")[1] > 2 * size_of(here / "out.png")[1]
    assert main(["project", str(star), str(folder / "circle.png"), "--layer", "layer2", "-o", "maps/", "-q"]) == 0
    assert sorted(file.name for file in (here / "maps").iterdir()) == ["circle_projections.png", "star_projections.png"]
    assert main(["project", str(folder), "--layer", "layer2", "--top", "3", "-o", "all.png"]) == 0
    assert main(["project", str(star), "--layer", "layer2", "-o", "kept.safetensors", "--of", "guided_backprop"]) == 0


def test_project_tells_what_is_wrong_in_one_line(folder: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    star = folder / "star.png"
    wrong = "there is no channel 48; the layer has 48, numbered 0 to 47"
    assert fails(capsys, "project", star, "--layer", "layer2", "--channels", "48") == wrong
    assert "channels are numbers" in fails(capsys, "project", star, "--channels", "a,b")
    assert "no layer 'layer9'" in fails(capsys, "project", star, "--layer", "layer9")


SMOOTH = """
from torch import nn

def net():
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 3), nn.SiLU(), *ends)
"""


def test_settings_of_the_method_inside_are_options(
    folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "smooth_net.py").write_text(SMOOTH)
    args = ["--model", "smooth_net:net", "--size", "32", "--layer", "2", "--channels", "1", "-o", "out.png"]
    star = folder / "star.png"
    for command in (["project", star], ["excite", star]):
        assert "the setting smooth=True extends it" in fails(capsys, *command, *args)
        assert main([*map(str, command), *args, "--smooth"]) == 0
        (here / "out.png").unlink()
        capsys.readouterr()


def test_pictures_are_prepared_as_explain_prepares_them(tmp_path: Path) -> None:
    model, paths = load_model("demo"), []
    for number, picture in enumerate(demo.pictures().pictures[:3]):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(picture).save(paths[-1])
    inputs = torch.stack([model.preprocessing(Image.open(path)) for path in paths])
    expected = top_activations(model, [inputs], "layer2", [3])[3]
    for batches in ([[*map(str, paths)]], paths, inputs):  # one batch of three, a batch of each, the tensor itself
        found = top_activations(model, batches, "layer2", [3])[3]
        assert [(top.number, top.at) for top in found] == [(top.number, top.at) for top in expected]
    field = receptive_field(model, paths[0], "layer2", expected[0].at)
    assert field == receptive_field(model, inputs, "layer2", expected[0].at)


def test_a_wrong_channel_of_the_automatic_layer_names_the_layer() -> None:
    with pytest.raises(ValueError, match="there is no channel 999 in layer 'layer3'; it has 96"):
        top_activations(load_model("demo"), [torch.rand(1, 3, 48, 48)], None, [999])


def test_a_compose_prepares_pictures_in_every_task(net: nn.Module) -> None:
    steps = T.Compose([T.Resize(24), T.CenterCrop(16), T.ToTensor(), T.Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))])
    pixels = np.arange(40 * 30 * 3, dtype=np.uint8).reshape(40, 30, 3)
    picture = Image.fromarray(pixels)
    expected = steps(picture)
    found = top_activations(net, [[picture]], "1", [0], count=1, preprocessing=steps)
    assert torch.allclose(found[0][0].input, expected, atol=1e-5)
    with torch.no_grad():
        said = int(net(expected[None]).argmax())
    matrix = confusion_matrix(net, [(picture, 0)], "gradient", preprocessing=steps)
    assert matrix.counts == {(0, said): 1}
    made = synthesize(net, "feature_image", layer="1", channel=0, steps=1, size=16, preprocessing=steps)
    assert made.preprocessing == Preprocessing.of(steps)
