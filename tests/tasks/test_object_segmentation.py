"""What a map points at is cut out whole: examples, colours, cut, largest part and box; drawn, and written as masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import cnnviz
from benchmarks import segmentation
from cnnviz import Explanation, demo, explain, load_model, segment
from cnnviz.__main__ import main
from cnnviz.demo import drawing
from cnnviz.tasks.object_segmentation import example_pixels

RED, BLUE = (0.9, 0.1, 0.1), (0.1, 0.2, 0.8)


def disc(size: tuple[int, int], row: float, column: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def painted(mask: NDArray[np.bool_], noise: float = 0.02) -> Tensor:
    """A picture (1, 3, H, W) in 0..1: red where the mask is, blue elsewhere, with a little noise."""
    picture = np.where(mask[..., None], RED, BLUE) + noise * np.random.default_rng(1).standard_normal((*mask.shape, 3))
    return torch.from_numpy(picture.clip(0, 1)).float().movedim(-1, 0)[None]


def explained(values: Any, inputs: Tensor) -> Explanation:
    values = torch.as_tensor(values).float()
    values = values.reshape(1, 1, *values.shape) if values.ndim == inputs.ndim - 2 else values
    return Explanation(values, inputs, torch.zeros(len(inputs), dtype=torch.int64), torch.ones(len(inputs)), "made()")


def test_a_few_places_find_the_whole_object() -> None:
    whole = disc((40, 60), 18, 25, 11)
    found = segment(explained(disc((40, 60), 20, 27, 4), painted(whole)))
    assert np.array_equal(found.masks[0].numpy(), whole)
    assert found.masks.dtype == torch.bool
    assert found.boxes.tolist() == [[14, 7, 37, 30]]


def test_coarse_maps_are_brought_to_the_pictures_size() -> None:
    whole = disc((48, 48), 16, 32, 9)
    coarse = torch.full((1, 1, 6, 6), -1.0)  # what speaks against the class does not point at anything
    coarse[0, 0, 2, 4] = 3.0
    found = segment(explained(coarse, painted(whole)))
    assert np.array_equal(found.masks[0].numpy(), whole)


def test_the_largest_connected_part_is_the_object() -> None:
    small, large = disc((40, 80), 20, 12, 5), disc((40, 80), 20, 55, 14)
    found = segment(explained(small.astype(float) + large, painted(small | large)))
    assert np.array_equal(found.masks[0].numpy(), large)
    corners = np.zeros((40, 80), bool)
    corners[10:20, 10:20] = corners[20:30, 20:30] = True  # parts that touch at a corner are one
    assert np.array_equal(segment(explained(corners, painted(corners))).masks[0].numpy(), corners)


def slow_examples(strengths: NDArray[Any], foreground: float, background: float) -> tuple[set[int], set[int]]:
    """By sorting and interpolating between neighbours, as the percentile is defined."""
    order = sorted(strengths.ravel().tolist())

    def percentile(share: float) -> float:
        place = share / 100 * (len(order) - 1)
        low = int(place)
        return order[low] + (order[min(low + 1, len(order) - 1)] - order[low]) * (place - low)

    high, low = percentile(foreground), percentile(background)
    strong = {n for n, value in enumerate(strengths.ravel()) if value > high or (value == high == order[-1])}
    return strong, {n for n, value in enumerate(strengths.ravel()) if value <= low} - strong


@pytest.mark.parametrize(("foreground", "background"), [(95, 30), (80, 60), (100, 0), (50, 49)])
def test_examples_are_the_strongest_and_the_weakest_places(foreground: float, background: float) -> None:
    rng = np.random.default_rng(3)
    for strengths in (rng.random((7, 9)), rng.integers(0, 3, (7, 9)).astype(float), np.eye(8), np.ones((4, 4))):
        strong, weak = example_pixels(strengths, foreground, background)
        told = slow_examples(strengths, foreground, background)
        assert (set(np.flatnonzero(strong)), set(np.flatnonzero(weak))) == told


def test_a_sparse_map_has_fewer_examples_and_a_saturated_one_more() -> None:
    sparse, saturated = np.zeros((10, 10)), np.zeros((10, 10))
    sparse[2, 3] = 1
    saturated[:4] = 1  # 40 of 100 share the highest value
    assert example_pixels(sparse, 95, 30)[0].sum() == 1
    assert example_pixels(saturated, 95, 30)[0].sum() == 40


@pytest.mark.parametrize("values", [torch.zeros(12, 14), torch.ones(12, 14), -torch.rand(12, 14)])
def test_a_map_without_contrast_points_at_nothing(values: Tensor) -> None:
    found = segment(explained(values[None, None, ::2, ::2], painted(disc((12, 14), 6, 6, 3))))
    assert not found.masks.any()
    assert found.boxes.tolist() == [[0, 0, 0, 0]]


def test_in_a_picture_of_one_colour_the_examples_are_the_object() -> None:
    values = torch.zeros(20, 20)
    values[5:9, 6:10] = 1
    found = segment(explained(values, torch.full((1, 3, 20, 20), 0.5)))
    assert torch.equal(found.masks[0], values > 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (1, 40)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_tiny_pictures_and_any_channels_are_cut_or_left(size: tuple[int, int], channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(2, channels, *size, generator=generator)
    values = torch.rand(2, 1, *size, generator=generator)
    found = segment(explained(values, inputs), iterations=2)
    assert found.masks.shape == (2, *size)
    for mask, (left, top, right, bottom) in zip(found.masks, found.boxes.tolist(), strict=True):
        inside = torch.zeros(size, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert not (mask & ~inside).any()
        assert mask.any() == (right > left)


def test_the_same_again_and_no_random_state_is_touched() -> None:
    import cv2

    whole = disc((30, 30), 15, 15, 7)
    asked = explained(np.random.default_rng(0).random((30, 30)) + whole, painted(whole, noise=0.3))

    def drawn() -> list[float]:
        numbers = np.zeros((1, 4), np.float32)
        cv2.randu(numbers, 0, 1)
        return [*numbers[0].tolist(), *np.random.random(2), *torch.rand(2).tolist()]

    states = []
    for between in (False, True):
        cv2.setRNGSeed(11)
        np.random.seed(11)
        torch.manual_seed(11)
        first = segment(asked) if between else None
        states.append(drawn())
    assert states[0] == states[1]
    assert first is not None
    assert torch.equal(first.masks, segment(asked).masks)


def test_the_sign_decides_what_points_at_the_object() -> None:
    whole, other = disc((40, 80), 20, 20, 10), disc((40, 80), 20, 60, 13)
    picture = painted(whole)
    picture[0, :, torch.from_numpy(other)] = torch.tensor((0.1, 0.8, 0.1))[:, None]  # green
    for_and_against = torch.from_numpy(whole * 1.0 - 2.0 * other).expand(1, 3, -1, -1)
    cut = {sign: segment(explained(for_and_against, picture), 80, 30, sign=sign).masks[0].numpy()
           for sign in ("auto", "positive", "magnitude")}  # fmt: skip
    assert np.array_equal(cut["positive"], whole)
    assert np.array_equal(cut["magnitude"], other)
    assert np.array_equal(cut["auto"], cut["magnitude"])  # one value for each input value, as a gradient


def test_what_cannot_be_cut_is_refused() -> None:
    picture = painted(disc((20, 20), 10, 10, 4))
    asked = explained(torch.rand(20, 20), picture)
    with pytest.raises(ValueError, match=r"inputs \(1, 2, 9\) are no images, and only these are cut by their colours"):
        segment(explained(torch.rand(1, 1, 9), torch.rand(1, 2, 9)))
    with pytest.raises(ValueError, match="background=95 and foreground=30 are no percentiles of two sides"):
        segment(asked, 30, 95)
    with pytest.raises(ValueError, match="iterations=0 cuts nothing; use 1 or more"):
        segment(asked, iterations=0)
    with pytest.raises(ValueError, match="there is no sign 'both'; use auto, positive, magnitude, signed"):
        segment(asked, sign="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"made\(\) has 4 maps for each input, which are no one map"):
        segment(explained(torch.rand(1, 4, 20, 20), picture))
    with pytest.raises(ValueError, match="are no map; explain signals, images or volumes"):
        segment(explained(torch.rand(1, 3, 400), torch.rand(1, 3, 20, 20)))
    with pytest.raises(ValueError, match=r"what made\(\) gave has 1 values that are not finite"):
        segment(explained(torch.rand(20, 20).index_put((torch.tensor(3), torch.tensor(4)), torch.tensor(torch.nan)),
                          picture))  # fmt: skip


def test_masks_are_written_as_pictures(tmp_path: Path) -> None:
    whole = disc((20, 30), 10, 12, 5)
    found = segment(explained(whole, painted(whole)))
    assert found.save(tmp_path / "mask.png") == [tmp_path / "mask.png"]
    with Image.open(tmp_path / "mask.png") as mask:
        assert mask.mode == "L"
        assert np.array_equal(np.asarray(mask), np.where(whole, 255, 0))
    two = segment(explained(torch.rand(2, 1, 5, 5), torch.rand(2, 3, 5, 5)))
    assert [path.name for path in two.save(tmp_path / "mask.png")] == ["mask-0.png", "mask-1.png"]
    assert torch.equal(two[1].masks[0], two.masks[1])
    with pytest.raises(ValueError, match=r"mask.jpg is no .png; masks are written so"):
        found.save(tmp_path / "mask.jpg")


def test_shapes_are_found_by_the_bundled_network() -> None:
    drawn = drawing.draw(24, seed=3, held_out=True)
    answer = explain(load_model("demo"), demo.as_inputs(drawn.pictures), "guided_grad_cam")
    masks, found = torch.from_numpy(drawn.masks), segment(answer).masks
    overlap = (found & masks).sum((1, 2)) / (found | masks).sum((1, 2))
    assert overlap.mean() > 0.8
    again = segment(answer, iterations=5).masks
    assert (((again & masks).sum((1, 2)) / (again | masks).sum((1, 2))).mean()) > 0.8


# How it is drawn


def test_the_object_keeps_its_colours_and_the_rest_is_dim_and_gray() -> None:
    whole = disc((40, 60), 18, 25, 11)
    inputs = painted(whole)
    (picture,) = explained(whole, inputs).render("segmentation", dim=0.5, color="#00ff00")
    original = (inputs[0].movedim(0, -1).numpy() * 255).round()
    assert np.abs(picture[whole] - original[whole]).max() <= 1
    outlined = (picture == (0, 255, 0)).all(-1)
    assert outlined.any()
    assert not outlined[whole].any()
    far = np.ones_like(whole)
    far[6:31, 13:38] = False  # the box and what is around it
    assert (np.ptp(picture[far].astype(int), axis=1) == 0).all()
    assert picture[far].mean() < 0.6 * original[far].mean()
    greener = picture[6, 14:37].astype(int)
    assert (greener[:, 1] > greener[:, 0] + 50).all()  # the box, above the object
    (bare,) = explained(whole, inputs).render("segmentation", dim=0.5, box=False, outline=False)
    assert np.array_equal(bare[whole], picture[whole])
    assert (np.ptp(bare[~whole].astype(int), axis=1) == 0).all()


def test_settings_of_the_renderer_are_checked() -> None:
    asked = explained(torch.rand(9, 9), torch.rand(1, 3, 9, 9))
    with pytest.raises(ValueError, match=r"dim=2 is out of range; use 0 to 1"):
        asked.render("segmentation", dim=2)
    with pytest.raises(ValueError, match="there is no color 'yelow'; use one of matplotlib's"):
        asked.render("segmentation", color="yelow")
    with pytest.raises(ValueError, match="segmentation draws images; for signals use 'line'"):
        explained(torch.rand(1, 1, 9), torch.rand(1, 1, 9)).render("segmentation")


# The commands


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two drawn pictures; the working folder is beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for name, picture in zip(demo.CATEGORIES[:2], demo.pictures().pictures, strict=False):
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{name}.png")
    return tmp_path / "pictures"


def test_the_command_writes_pictures_masks_and_boxes(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["segment", "pictures", "-o", "cut/", "--write-masks", "masks", "--foreground", "97", "--dim", "0.2"]) == 0
    )
    said = capsys.readouterr()
    answer = explain(load_model("demo"), demo.as_inputs(demo.pictures().pictures[:2]), "grad_cam")
    found = segment(answer, 97)
    box = ",".join(map(str, found.boxes[0].tolist()))
    assert f"pictures/circle.png: grad_cam: box {box}, {float(found.masks[0].float().mean()):.1%} of the picture" in (
        said.out.splitlines()
    )
    assert said.err == ""
    drawn = answer.render("segmentation", foreground=97, dim=0.2)
    for name, mask, picture in zip(demo.CATEGORIES, found.masks, drawn, strict=False):
        with Image.open(f"masks/{name}.png") as written, Image.open(f"cut/{name}_grad_cam.png") as cut:
            assert np.array_equal(np.asarray(written) == 255, mask.numpy())
            assert np.array_equal(np.asarray(cut), picture)


def test_masks_of_several_methods_have_folders(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["segment", "pictures", "-m", "grad_cam,gradient", "-o", "all.png", "--write-masks", "masks", "-q"]
    assert main(command) == 0
    assert capsys.readouterr().out == ""
    written = sorted(str(path.relative_to("masks")) for path in Path("masks").rglob("*.png"))
    assert written == [f"{method}/{name}.png" for method in ("grad_cam", "gradient") for name in ("circle", "square")]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            ["pictures", "--write-masks", "pictures"],
            "pictures/circle.png is read, and would be replaced; choose another name",
        ),
        (["pictures", "--foreground", "20"], "background=30 and foreground=20 are no percentiles of two sides"),
        (
            ["pictures", "--foregruond", "20"],
            "there is no option --foregruond for grad_cam; did you mean --foreground?",
        ),
        (["pictures", "-m", "saliency_confusion"], "has 4 maps for each input, which are no one map"),
        (["nowhere"], "no file or folder 'nowhere'"),
    ],
)
def test_one_line_tells_what_is_wrong(
    pictures: Path, capsys: pytest.CaptureFixture[str], command: list[str], told: str
) -> None:
    before = sorted(Path().rglob("*"))
    assert main(["segment", *command]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert sorted(Path().rglob("*")) == before  # nothing half done


def test_the_benchmark_ranks_maps_and_tells_whom_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = torch.zeros(2, 5, 6, dtype=torch.bool)
    masks[0, 1, 2] = masks[0, 3, 4] = True
    boxes = torch.zeros_like(masks)
    boxes[0, 1:4, 2:5] = True
    assert torch.equal(segmentation.filled(masks), boxes)
    assert segmentation.overlap(masks, boxes).tolist() == pytest.approx([2 / 9, 0])
    page = tmp_path / "segmentation.md"
    asked = ["segmentation", "--count", "6", "--methods", "grad_cam", "saliency_confusion", "--write", str(page)]
    monkeypatch.setattr("sys.argv", asked)
    assert segmentation.main() == 0
    said = capsys.readouterr()
    assert "saliency_confusion is left out" in said.err.replace("\n", " ")
    table = {row[0]: row[1:] for row in (line.strip("| ").split(" | ") for line in page.read_text().splitlines())}
    assert set(table) > {"grad_cam", "(centre blob)", "(edges)", "(random)"}
    drawn = drawing.draw(6, seed=segmentation.SEED, held_out=True)
    answer = explain(load_model("demo"), demo.as_inputs(drawn.pictures), "grad_cam", target=drawn.labels.tolist())
    by_hand = cnnviz.evaluate(answer, "mask_iou", masks=drawn.masks, by="segmentation")
    assert float(table["grad_cam"][0]) == pytest.approx(float(by_hand.mean()), abs=6e-4)
    assert (tmp_path / "pictures" / "segmentation.jpg").is_file()
