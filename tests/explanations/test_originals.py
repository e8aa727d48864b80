"""An answer lies over the user's own picture, at the picture's own size, where the network looked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import cnnviz
from cnnviz import Explanation, Preprocessing
from cnnviz.explanations.on_original import FigureError
from cnnviz.images.originals import Original

WIDE = Preprocessing((0.2, 0.3, 0.4), (0.5, 0.6, 0.7), 40, (32, 32))
SETTINGS = {
    "cropped": WIDE,
    "squashed": Preprocessing((0.0,) * 3, (1.0,) * 3, (32, 48)),
    "squashed and cropped": Preprocessing((0.0,) * 3, (1.0,) * 3, (36, 50), (32, 40)),
    "filled up": Preprocessing((0.0,) * 3, (1.0,) * 3, 32, (32, 32), fit="contain"),
    "not resized": Preprocessing((0.0,) * 3, (1.0,) * 3, None, (40, 24)),
    "as it is": Preprocessing((0.0,) * 3, (1.0,) * 3),
}


class Net(torch.nn.Module):
    """Two classes of any picture: how red it is, and how blue."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 4, 3, padding=1, stride=4)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.convolution(pictures).relu().mean((2, 3))[:, :2]


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return _photo(tmp_path / "photo.png", 100, 75)


def _photo(path: Path, width: int, height: int) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def _white(explanation: Explanation) -> NDArray[np.uint8]:
    """The picture with what the map has above a half in white: any other renderer's pixels could hide a shift."""
    pictures = (cnnviz.explanations.input_pictures(explanation) * 255).round().byte().movedim(1, -1).numpy().copy()
    maps = cnnviz.explanations.evidence(explanation).numpy()
    pictures[maps > 0.5 * maps.max()] = 255
    return pictures


@pytest.mark.parametrize("name", list(SETTINGS))
@pytest.mark.parametrize("size", [(100, 75), (60, 90), (33, 33)])
def test_the_map_lies_where_the_crop_lay(net: Net, tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    path = _photo(tmp_path / "p.png", *size)
    explanation = cnnviz.explain(net, path, preprocessing=SETTINGS[name])
    spot = torch.zeros_like(explanation.inputs[:, :1])
    height, width = spot.shape[2:]
    spot[..., height // 2 : height // 2 + 6, width // 4 : width // 4 + 8] = 1  # a spot of known place in the input
    (drawn,) = replace(explanation, values=spot).render(_white, at="original")
    whole = np.asarray(Image.open(path))
    assert drawn.shape == whole.shape == (size[1], size[0], 3)
    # the slow reference: the place of each pixel of the original in the input, one by one
    left, top, right, bottom = SETTINGS[name].crop_box(size[1], size[0])
    for row in range(size[1]):
        for column in range(size[0]):
            y = (row + 0.5 - top) / (bottom - top) * height
            x = (column + 0.5 - left) / (right - left) * width
            down, across = height / (bottom - top), width / (right - left)  # a pixel of the original, in the input
            inside = min(y - height // 2, height // 2 + 6 - y) / down, min(x - width // 4, width // 4 + 8 - x) / across
            if min(inside) > 1:  # a pixel from the edge either answer is right
                assert (drawn[row, column] == 255).all(), (row, column)
            elif min(inside) < -1:
                assert abs(drawn[row, column].astype(int) - whole[row, column]).max() <= 1, (row, column)


def test_a_map_of_a_layer_keeps_its_resolution_until_it_is_drawn(net: Net, photo: Path) -> None:
    explanation = cnnviz.explain(net, photo, preprocessing=WIDE)
    coarse = torch.zeros(1, 1, 8, 8)
    coarse[..., 4, 4] = 1
    (drawn,) = replace(explanation, values=coarse).render("overlay", at="original", colormap="Reds", normalize="image")
    whole = np.asarray(Image.open(photo)).astype(int)
    left, top, right, bottom = WIDE.crop_box(75, 100)
    peak = top + (bottom - top) * 4.5 / 8, left + (right - left) * 4.5 / 8
    rows, columns = (abs(drawn.astype(int) - whole).sum(2) > 3).nonzero()
    assert abs(rows.mean() + 0.5 - peak[0]) < 1
    assert abs(columns.mean() + 0.5 - peak[1]) < 1


@pytest.mark.parametrize("renderer", ["overlay", "boxes"])
def test_the_rest_of_the_picture_is_shown(net: Net, photo: Path, renderer: str) -> None:
    explanation = cnnviz.explain(net, photo, preprocessing=WIDE, target=0)
    (drawn,) = explanation.render(renderer, at="original")
    left, top, right, bottom = explanation.originals[0].region if explanation.originals else (0,) * 4  # type: ignore[union-attr]
    rest = np.ones(drawn.shape[:2], bool)
    rest[top:bottom, left:right] = False
    assert rest.sum() > 500
    np.testing.assert_array_equal(drawn[rest], np.asarray(Image.open(photo))[rest])


@pytest.mark.parametrize(
    ("renderer", "color"), [("grayscale", (0, 0, 0)), ("color", (128, 128, 128)), ("positive", (0, 0, 0))]
)
def test_beyond_a_map_alone_the_colour_is_that_of_zero(
    net: Net, photo: Path, renderer: str, color: tuple[int, int, int]
) -> None:
    explanation = cnnviz.explain(net, photo, "gradient", preprocessing=WIDE)
    (drawn,) = explanation.render(renderer, at="original")
    assert (drawn[0] == color).all()
    assert not (drawn == color).all()


@pytest.mark.parametrize(
    "renderer", ["panels", "channels", "by_channel", "confusion_matrix", "line", "slices", "projection"]
)
def test_a_figure_refuses_by_its_name(net: Net, photo: Path, renderer: str) -> None:
    explanation = cnnviz.explain(net, photo, preprocessing=WIDE)
    with pytest.raises(ValueError, match=f"^{renderer} draws a figure of its own, which lies over no picture"):
        explanation.render(renderer, at="original")


def test_a_colour_bar_makes_a_figure(net: Net, photo: Path) -> None:
    explanation = cnnviz.explain(net, photo, preprocessing=WIDE)
    with pytest.raises(FigureError, match=r"overlay draws a figure of \d+ x \d+ pixels with these settings"):
        explanation.render("overlay", at="original", bar=True)
    with pytest.raises(ValueError, match="there is no at='big'; use 'input', or 'original'"):
        explanation.render(at="big")  # type: ignore[call-overload]


def test_a_photograph_is_turned_upright_as_a_path_and_as_a_picture(net: Net, tmp_path: Path) -> None:
    picture = Image.open(_photo(tmp_path / "flat.png", 90, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(tmp_path / "turned.png", exif=exif)
    by_path = cnnviz.explain(net, tmp_path / "turned.png", preprocessing=WIDE)
    by_picture = cnnviz.explain(net, Image.open(tmp_path / "turned.png"), preprocessing=WIDE)
    upright = cnnviz.explain(net, np.rot90(np.asarray(picture), -1), preprocessing=WIDE)
    for each in (by_path, by_picture, upright):
        torch.testing.assert_close(each.values, by_path.values)
        (drawn,) = each.render(at="original")
        assert drawn.shape == (90, 60, 3)
        np.testing.assert_array_equal(drawn, by_path.render(at="original")[0])


def test_a_tensor_is_its_own_original(net: Net) -> None:
    explanation = cnnviz.explain(net, torch.rand(2, 3, 20, 30))
    assert explanation.originals is None
    drawn = explanation.render(at="original")
    assert isinstance(drawn, list)
    np.testing.assert_array_equal(np.stack(drawn), explanation.render())


def test_photographs_of_different_sizes_are_a_list(net: Net, tmp_path: Path) -> None:
    paths = [_photo(tmp_path / f"{number}.png", 50 + 10 * number, 60) for number in range(3)]
    explanation = cnnviz.explain(net, paths, preprocessing=WIDE)
    sizes = [(60, 50, 3), (60, 60, 3), (60, 70, 3)]
    assert [drawn.shape for drawn in explanation.render(at="original")] == sizes
    assert [drawn.shape for drawn in explanation[1:].render(at="original")] == sizes[1:]
    assert [drawn.shape for part in explanation for drawn in part.render(at="original")] == sizes
    files = explanation.save(tmp_path / "map.png", at="original")
    assert [_size(file) for file in files] == [(50, 60), (60, 60), (70, 60)]
    assert cnnviz.explain(net, tmp_path, preprocessing=WIDE).originals is not None  # a folder, with the maps


def test_a_picture_that_is_gone_or_changed_is_refused(net: Net, photo: Path) -> None:
    explanation = cnnviz.explain(net, photo, preprocessing=WIDE)
    content = photo.read_bytes()
    photo.write_bytes(content + b" ")
    with pytest.raises(ValueError, match=r"the picture '.*photo\.png' has changed since it was explained"):
        explanation.render(at="original")
    photo.unlink()
    with pytest.raises(FileNotFoundError, match=r"photo\.png' that was explained is not there any more"):
        explanation.render(at="original")
    assert explanation.render().shape == (1, 32, 32, 3)
    photo.write_bytes(content)
    assert explanation.render(at="original")[0].shape == (75, 100, 3)


def test_what_was_saved_lies_over_the_original_again(net: Net, photo: Path, tmp_path: Path) -> None:
    given: list[Any] = [photo, Image.open(photo), np.asarray(Image.open(photo).convert("L"))]
    for number, picture in enumerate(given):
        explanation = cnnviz.explain(net, picture, preprocessing=WIDE)
        explanation.save(tmp_path / f"{number}.safetensors")
        read = Explanation.load(tmp_path / f"{number}.safetensors")
        np.testing.assert_array_equal(read.render(at="original")[0], explanation.render(at="original")[0])


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({}, "is described by {}, not by a size and a box"),
        ({"size": [3, 0], "box": [0, 0, 1, 1]}, "not by a size and a box"),
        ({"size": [3, 3], "box": [0, 0, 1, "x"]}, "which is no place in a picture"),
        ({"size": [3, 3], "box": [0, 0, 1, 1]}, "neither pixels nor a path with a sha256"),
    ],
)
def test_a_description_of_no_original_is_refused(about: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Original.from_described(about, None)


def test_a_box_that_would_fill_memory_is_refused(net: Net, photo: Path) -> None:
    explanation = cnnviz.explain(net, photo, preprocessing=WIDE)
    assert explanation.originals is not None
    claimed = replace(explanation.originals[0], box=(0.0, 0.0, 9e8, 9e8))  # type: ignore[type-var]  # it is there
    with pytest.raises(
        ValueError, match="reaches over 900000000 x 900000000 pixels of its original, more than the limit"
    ):
        replace(explanation, originals=(claimed,)).render(at="original")


def test_the_whole_picture_is_explained(net: Net, photo: Path) -> None:
    whole = cnnviz.explain(net, photo, preprocessing=WIDE, preprocess="whole")
    assert whole.inputs.shape == (1, 3, 40, 53)
    assert whole.originals is not None
    assert whole.originals[0] is not None
    assert whole.originals[0].region == (0, 0, 100, 75)
    fixed = torch.nn.Sequential(Net(), torch.nn.Flatten()).eval()
    fixed[0] = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten(), torch.nn.Linear(2 * 30 * 30, 2))
    assert cnnviz.explain(fixed, photo, "gradient", preprocessing=WIDE).inputs.shape == (1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"have to be cropped: leave preprocess='whole' out"):
        cnnviz.explain(fixed, photo, "gradient", preprocessing=WIDE, preprocess="whole")
    with pytest.raises(ValueError, match="preprocess='whole' needs to know how pictures are prepared"):
        cnnviz.explain(net, torch.rand(1, 3, 8, 8), preprocess="whole")
    with pytest.raises(ValueError, match="there is no preprocess='all'; use 'crop', or 'whole'"):
        cnnviz.explain(net, photo, preprocessing=WIDE, preprocess="all")  # type: ignore[call-overload]


def test_masks_and_boxes_of_a_segmentation_lie_over_the_original(net: Net, photo: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 60, (75, 100, 3), np.uint8)
    pixels[..., 2] += 150
    pixels[24:44, 43:63] = pixels[24:44, 43:63, ::-1]  # red on blue
    Image.fromarray(pixels).save(photo)
    explanation = cnnviz.explain(net, [photo, photo], preprocessing=WIDE)
    spot = torch.zeros(2, 1, 8, 8)
    spot[..., 2:5, 3:6] = 1
    explanation = replace(explanation, values=spot)
    segmented = cnnviz.segment(explanation)
    for part, mask in zip(segmented.at_original(), segmented.masks, strict=True):
        left, top, right, bottom = WIDE.crop_box(75, 100)
        for row in range(75):  # the slow reference
            for column in range(100):
                y = int((row + 0.5 - round(top)) / (round(bottom) - round(top)) * 32 // 1)
                x = int((column + 0.5 - round(left)) / (round(right) - round(left)) * 32 // 1)
                inside = round(left) <= column < round(right) and round(top) <= row < round(bottom)
                assert bool(part.masks[0, row, column]) == (inside and bool(mask[y, x]))
        rows, columns = part.masks[0].nonzero(as_tuple=True)
        box = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
        assert part.boxes[0].tolist() == box
        assert max(abs(found - there) for found, there in zip(box, (43, 24, 63, 44), strict=True)) <= 3
    files = segmented.save(tmp_path / "mask.png", at="original")
    assert [_size(file) for file in files] == [(100, 75)] * 2
    drawn = cnnviz.renderers["segmentation"](outline=False, box=False)
    (picture,) = explanation[0].render(drawn, at="original")
    in_colour = abs(picture.astype(int) - pixels).max(2) <= 1
    np.testing.assert_array_equal(in_colour, segmented.at_original()[0].masks[0].numpy())


@pytest.mark.parametrize("make", [lambda path: path, Image.open, lambda path: np.asarray(Image.open(path))])
def test_pictures_may_be_the_values_of_a_mapping(photo: Path, make: Callable[[Path], Any]) -> None:
    class Pair(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 2, 3)

        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return (self.convolution(left) * self.convolution(right)).mean((2, 3))

    inputs = {"left": make(photo), "right": make(photo)}
    explanation = cnnviz.explain(Pair().eval(), inputs, "gradient", of="right", preprocessing=WIDE)
    assert explanation.render(at="original")[0].shape == (75, 100, 3)


def test_a_data_loader_is_explained_batch_by_batch(net: Net) -> None:
    from torch.utils.data import DataLoader

    inputs = torch.rand(5, 3, 16, 16)
    loaders: list[DataLoader[Any]] = [
        DataLoader(inputs, batch_size=2),  # type: ignore[arg-type]  # a tensor is a data set
        DataLoader(list(zip(inputs, range(5), strict=True)), batch_size=2),  # type: ignore[arg-type]  # so is a list
        DataLoader([{"label": 1, "pixel_values": each} for each in inputs], batch_size=3),  # type: ignore[arg-type]
    ]
    targets = [0, 1, 0, 1, 1]
    expected = cnnviz.explain(net, inputs, ["grad_cam", "gradient"], target=targets)
    for loader in loaders:
        found = cnnviz.explain(net, loader, ["grad_cam", "gradient"], target=targets)
        for name, explanation in expected.items():
            torch.testing.assert_close(found[name].values, explanation.values)
            assert found[name].target is not None
            assert found[name].target.tolist() == targets
    ranks = cnnviz.explain(net, loaders[0], target=cnnviz.targets.top(2))
    assert [len(each) for each in ranks] == [5, 5]
    with pytest.raises(TypeError, match="a batch of the data loader has 'label', and none of them is called"):
        cnnviz.explain(net, DataLoader([{"label": 1}]))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the data loader has no batches"):
        cnnviz.explain(net, DataLoader([]))


def test_arrays_are_pictures_or_inputs(net: Net) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 50, 40, 3), np.uint8)
    by_array = cnnviz.explain(net, pictures, preprocessing=WIDE)
    by_picture = cnnviz.explain(net, [Image.fromarray(each) for each in pictures], preprocessing=WIDE)
    torch.testing.assert_close(by_array.values, by_picture.values, rtol=0, atol=0)
    ready = np.random.default_rng(0).normal(size=(2, 3, 16, 16))
    by_values = cnnviz.explain(net, ready)
    torch.testing.assert_close(by_values.inputs, torch.from_numpy(ready).float())
    with pytest.raises(ValueError, match=r"an array int64 \(4, 4, 3\) is no picture; give uint8 \(H, W\)"):
        cnnviz.explain(net, np.zeros((4, 4, 3), np.int64), preprocessing=WIDE)
    with pytest.raises(TypeError, match="the input is a ndarray; without a preprocessing only tensors"):
        cnnviz.explain(net, pictures)
