"""Masks say what is inside in several ways, and an annotation belongs to the file whose path it gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cnnviz.images import read_annotations
from cnnviz.images.annotations import Annotations

SIZE = (12, 20)
OBJECT = np.zeros(SIZE, bool)
OBJECT[2:9, 3:11] = True
BORDER = np.zeros(SIZE, bool)
BORDER[1:10, 2:12] = True
BORDER &= ~OBJECT
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0] + [7, 9, 200] * 253


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    folder = tmp_path / "masks"
    folder.mkdir()
    return folder


def found(masks: Path, inside: object = None, name: str = "a.jpg") -> NDArray[np.bool_]:
    return read_annotations(masks, inside=inside).mask(Path("photos", name), SIZE)  # type: ignore[arg-type]


def save_palette(levels: NDArray[np.uint8], file: Path, palette: list[int] = VOC) -> None:
    picture = Image.new("P", levels.shape[::-1])
    picture.putpalette(palette)
    picture.putdata(levels.reshape(-1).tolist())
    picture.save(file)


# Transparency


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (10, 200, 90)])
def test_what_is_opaque_is_inside_whatever_its_colour(masks: Path, color: tuple[int, int, int]) -> None:
    pixels = np.zeros((*SIZE, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = color, OBJECT * 255
    Image.fromarray(pixels).save(masks / "a.png")
    np.testing.assert_array_equal(found(masks), OBJECT)
    Image.fromarray(pixels[..., 2:]).save(masks / "a.png")  # gray with transparency
    np.testing.assert_array_equal(found(masks), OBJECT)
    with pytest.raises(ValueError, match="has transparency, which says what is inside; leave --inside out"):
        found(masks, (1,))


def test_a_cut_out_is_a_mask(masks: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 4), np.uint8)
    pixels[..., 3] = OBJECT * 255
    for name in ("a.png", "a.webp"):
        Image.fromarray(pixels).save(masks / name, lossless=True)
        np.testing.assert_array_equal(found(masks), OBJECT)
        (masks / name).unlink()
    clear = Image.new("P", SIZE[::-1], 1)
    clear.putpalette([0, 0, 0, 200, 100, 50])
    clear.putdata(OBJECT.astype(int).reshape(-1).tolist())
    clear.save(masks / "a.gif", transparency=0)
    np.testing.assert_array_equal(found(masks), OBJECT)


def test_transparency_that_is_the_same_everywhere_says_nothing(masks: Path) -> None:
    pixels = np.full((*SIZE, 4), 255, np.uint8)
    pixels[..., :3] = OBJECT[..., None] * 255
    Image.fromarray(pixels).save(masks / "a.png")
    np.testing.assert_array_equal(found(masks), OBJECT)


def test_black_and_white_with_transparency_say_two_things(masks: Path) -> None:
    pixels = np.zeros((*SIZE, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = OBJECT[..., None] * 255, (OBJECT | BORDER) * 255
    Image.fromarray(pixels).save(masks / "a.png")
    with pytest.raises(ValueError, match="has transparency, and black and white where it is opaque; save it without"):
        found(masks)


# Index masks


def test_of_one_class_all_but_the_background_and_the_void_is_inside(masks: Path) -> None:
    for number in (1, 15):
        save_palette((OBJECT * number + BORDER * 255).astype(np.uint8), masks / "a.png")
        np.testing.assert_array_equal(found(masks), OBJECT)
        np.testing.assert_array_equal(found(masks, "nonzero"), OBJECT)
        np.testing.assert_array_equal(found(masks, (number,)), OBJECT)
        np.testing.assert_array_equal(found(masks, (255,)), BORDER)
        np.testing.assert_array_equal(found(masks, (9,)), OBJECT & False)
    save_palette((OBJECT * 255).astype(np.uint8), masks / "a.png")  # void is void beside a class alone
    np.testing.assert_array_equal(found(masks), OBJECT)


@pytest.mark.parametrize("kind", ["palette", "gray", "16 bits", "array", "floats"])
def test_several_classes_are_asked_for(masks: Path, kind: str) -> None:
    levels = OBJECT * 1
    levels[5:9, 6:11] = 15
    file = masks / ("a.npy" if kind in ("array", "floats") else "a.png")
    if kind == "palette":
        save_palette((levels + BORDER * 255).astype(np.uint8), file)
    elif kind in ("gray", "16 bits"):
        Image.fromarray(levels.astype(np.uint8 if kind == "gray" else np.uint16)).save(file)
    else:
        np.save(file, levels.astype(np.int64 if kind == "array" else np.float64))
    told = r"mask '.*' has the levels 0, 1, 15(, 255)?; say which are inside with --inside 1,15 or --inside nonzero"
    with pytest.raises(ValueError, match=told):
        found(masks)
    np.testing.assert_array_equal(found(masks, (1,)), levels == 1)
    np.testing.assert_array_equal(found(masks, (1, 15)), OBJECT)
    np.testing.assert_array_equal(found(masks, "nonzero"), OBJECT)


def test_gray_palettes_are_read_as_gray_whatever_their_order(masks: Path) -> None:
    save_palette((~OBJECT).astype(np.uint8), masks / "a.png", [255, 255, 255, 0, 0, 0])
    np.testing.assert_array_equal(found(masks), OBJECT)


def test_smooth_edges_are_no_classes(masks: Path) -> None:
    drawn = Image.fromarray((OBJECT * 255).astype(np.uint8)).resize((40, 24), Image.Resampling.BILINEAR)
    assert len(np.unique(np.asarray(drawn))) > 2
    drawn.save(masks / "a.png")
    read = read_annotations(masks).mask(Path("a.png"), (24, 40))
    np.testing.assert_array_equal(read, np.asarray(drawn) > 127)
    Image.fromarray((OBJECT * 255).astype(np.uint8)).save(masks / "b.jpg", quality=60)
    near = found(masks, name="b.png") != OBJECT
    assert near.mean() < 0.05


def test_a_mask_of_numbers_that_are_none_is_told(masks: Path) -> None:
    np.save(masks / "a.npy", np.where(OBJECT, np.nan, 0.0))
    with pytest.raises(ValueError, match=r"mask '.*a.npy' holds NaN or infinity; a mask has finite numbers"):
        found(masks)
    colors = np.zeros((*SIZE, 3), np.uint8)
    colors[OBJECT] = 200, 30, 30
    Image.fromarray(colors).save(masks / "b.png")
    np.testing.assert_array_equal(found(masks, name="b.jpg"), OBJECT)
    with pytest.raises(ValueError, match=r"mask '.*b.png' has colours and no levels; leave --inside out"):
        found(masks, (1,), "b.jpg")


# Whose annotation it is


def filled(file: Path, number: int) -> None:
    """A mask that can be told from others: its first ``number`` places."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.arange(240).reshape(SIZE) < number).astype(np.uint8) * 255).save(file)


def count(annotations: Annotations, path: str) -> int:
    return int(annotations.mask(Path(path), SIZE).sum())


def test_masks_lie_in_folders_as_their_pictures_do(masks: Path) -> None:
    filled(masks / "cats" / "1.png", 10)
    filled(masks / "dogs" / "1.png", 20)
    filled(masks / "3.PNG", 30)
    filled(masks / "4.jpg.png", 40)
    filled(masks / "4.png", 50)
    pictures = ["photos/cats/1.jpg", "photos/dogs/1.jpg", "photos/cats/3.jpg", "photos/4.jpg", "photos/4.png"]
    read = read_annotations(masks, pictures=pictures)
    assert [count(read, path) for path in pictures] == [10, 20, 30, 40, 50]
    with pytest.raises(LookupError, match=r"'photos/birds/1.jpg' has no mask"):
        count(read, "photos/birds/1.jpg")


def test_a_mask_that_fits_two_pictures_is_refused(masks: Path) -> None:
    filled(masks / "x.png", 10)
    pictures = ["one/x.png", "two/x.png"]
    assert count(read_annotations(masks), "one/x.png") == 10  # nobody knows of the other
    told = r"mask '.*x.png' fits 'two/x.png' and 'one/x.png'; put it into folders named as theirs"
    with pytest.raises(ValueError, match=told):
        count(read_annotations(masks, pictures=pictures), "two/x.png")
    np.save(masks / "x.npy", OBJECT)
    with pytest.raises(ValueError, match=r"'one/x.png' has two masks, '.*x.png' and '.*x.npy'; keep one of them"):
        count(read_annotations(masks, pictures=pictures), "one/x.png")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "boxes.csv"


def write(table: Path, *lines: str) -> None:
    table.write_text("\n".join(["file,x0,y0,x1,y1", *lines]))


def test_boxes_belong_to_as_much_of_the_path_as_the_table_gives(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(
        table,
        "one/x.png,0,0,1,1",
        "two/x.png,0,0,2,1",
        "two/x.png,0,1,1,2",
        r"three\x.png,0,0,4,1",
        "../up/y.png,0,0,5,1",
    )
    pictures = ["one/x.png", "two/x.png", "three/x.png"]
    read = read_annotations(table, pictures=pictures)
    assert [count(read, path) for path in pictures] == [1, 3, 4]
    assert count(read, str(tmp_path / "two" / "x.png")) == 3
    assert count(read, str(tmp_path.parent / "up" / "y.png")) == 5
    with pytest.raises(LookupError, match=r"no line for x.png in .*boxes.csv; there is 'one/x.png', which is another"):
        count(read, "four/x.png")
    with pytest.raises(LookupError, match=r"no line for y.png"):
        count(read, "one/y.png")
    monkeypatch.chdir(tmp_path.parent)
    Path("two").mkdir(exist_ok=True)
    monkeypatch.chdir("two")
    assert count(read_annotations(table), "x.png") == 3  # the folder is part of its path, though it is not written


def test_a_line_that_fits_two_pictures_is_refused(table: Path) -> None:
    write(table, "x.png,0,0,1,1", "two/x.png,0,0,2,1", "z,0,0,3,1")
    pictures = ["one/x.png", "two/x.png", "three/x.png"]
    read = read_annotations(table, pictures=pictures)
    assert count(read, "two/x.png") == 2  # which has a line of its own
    told = r"'x.png' of .*boxes.csv fits 'one/x.png' and 'three/x.png'; write as much of their paths as tells"
    with pytest.raises(ValueError, match=told):
        count(read, "one/x.png")
    assert count(read_annotations(table, pictures=["one/x.png", "one/x.png"]), "one/x.png") == 1
    assert count(read_annotations(table, pictures=["z.png"]), "z.png") == 3
    with pytest.raises(ValueError, match=r"'z' of .* fits 'z.png' and 'z.jpg'"):
        count(read_annotations(table, pictures=["z.png", "z.jpg"]), "z.png")
    with pytest.raises(ValueError, match="is a table, and what is inside is asked of masks; leave --inside out"):
        read_annotations(table, inside=(1,))
