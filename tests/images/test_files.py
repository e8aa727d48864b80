"""Files become pictures and inputs, and a file that is broken, huge or hostile is told in one clear line."""

from __future__ import annotations

import os
import pickle
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnviz.images.finding import find_pictures
from cnnviz.images.preprocessing import IMAGENET, Preprocessing
from cnnviz.images.reading import read_input, read_picture

PLAIN = Preprocessing((0.0,) * 3, (1.0,) * 3)
GREY = Preprocessing((0.0,), (1.0,))


@pytest.fixture
def photo() -> Image.Image:
    """6 x 4 with a red upper left corner."""
    picture = Image.new("RGB", (6, 4), (10, 200, 90))
    picture.paste((250, 20, 30), (0, 0, 3, 2))
    return picture


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes with such a header; its pixels never come."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "bmp", "gif"])
def test_the_usual_formats_are_read(tmp_path: Path, photo: Image.Image, suffix: str) -> None:
    photo.resize((60, 40), Image.Resampling.NEAREST).save(tmp_path / f"a.{suffix}")
    read = read_picture(tmp_path / f"a.{suffix}")
    assert (read.mode, read.size) == ("RGB", (60, 40))
    np.testing.assert_allclose(read.getpixel((5, 5)), (250, 20, 30), atol=12)
    np.testing.assert_allclose(read.getpixel((50, 30)), (10, 200, 90), atol=12)


def test_content_decides_and_not_the_suffix(tmp_path: Path, photo: Image.Image) -> None:
    photo.save(tmp_path / "a.jpg", "PNG")
    assert read_picture(tmp_path / "a.jpg").getpixel((0, 0)) == (250, 20, 30)


def test_other_formats_are_not_opened_at_all(tmp_path: Path, photo: Image.Image) -> None:
    photo.save(tmp_path / "a.png", "PPM")
    with pytest.raises(
        ValueError, match=r"a.png' is not a picture that can be read \(JPEG, PNG, WEBP, TIFF, BMP, GIF(, AVIF)?\)"
    ):
        read_picture(tmp_path / "a.png")


def test_a_photo_taken_sideways_is_upright(tmp_path: Path, photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    photo.save(tmp_path / "a.png", exif=exif)
    read = read_picture(tmp_path / "a.png")
    assert read.size == (4, 6)
    assert read.getpixel((3, 0)) == (250, 20, 30)
    assert read.getpixel((0, 0)) == (10, 200, 90)


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    clear.putpixel((0, 0), (0, 0, 255, 255))
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([0, 0, 0, 0, 0, 255])
    palette.putpixel((0, 0), 1)
    clear.save(tmp_path / "rgba.png")
    palette.save(tmp_path / "palette.png", transparency=0)
    palette.save(tmp_path / "palette.gif", transparency=0)
    for name in ("rgba.png", "palette.png", "palette.gif"):
        assert list(read_picture(tmp_path / name).get_flattened_data()) == [(0, 0, 255), (255, 255, 255)]
    four = Preprocessing((0.0,) * 4, (1.0,) * 4)
    assert read_input(tmp_path / "rgba.png", four)[3].tolist() == [[1.0, 0.0]]  # kept where the network takes it


def test_16_bit_and_cmyk_pictures_have_their_colours(tmp_path: Path, photo: Image.Image) -> None:
    values = np.array([[0, 1, 32768, 65535]], np.uint16)
    for name in ("a.png", "a.tiff"):
        Image.fromarray(values).save(tmp_path / name)
        # all 16 bits where the network takes gray, and 8 where it takes colours
        assert read_input(tmp_path / name, GREY)[0, 0].tolist() == pytest.approx([0, 1 / 65535, 32768 / 65535, 1])
        assert read_input(tmp_path / name, PLAIN)[1, 0].tolist() == pytest.approx([0, 0, 128 / 255, 1])
        assert read_picture(tmp_path / name).mode == "RGB"
    photo.convert("CMYK").save(tmp_path / "b.tiff")
    np.testing.assert_allclose(read_picture(tmp_path / "b.tiff").getpixel((0, 0)), (250, 20, 30), atol=2)


def test_an_animation_gives_its_first_frame(tmp_path: Path, photo: Image.Image) -> None:
    for name in ("a.gif", "a.webp"):
        photo.save(tmp_path / name, save_all=True, append_images=[Image.new("RGB", (6, 4))], lossless=True)
        np.testing.assert_allclose(read_picture(tmp_path / name).getpixel((0, 0)), (250, 20, 30), atol=2)


def test_a_huge_picture_is_refused_by_its_header(tmp_path: Path) -> None:
    for width, height in (
        (8_001, 8_000),
        (12_000, 8_000),
        (65_535, 65_535),
    ):  # ours, Pillow's warning, its error
        path = tmp_path / f"{width}.png"
        path.write_bytes(png_that_claims(width, height))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a user's filters cannot switch the limit off
            with pytest.raises(ValueError, match=r"pixels, more than the limit|has more pixels"):
                read_picture(path)
    with pytest.raises(ValueError, match="8001 x 8000 = 64,008,000 pixels, more than the limit of 64,000,000; make it"):
        read_picture(tmp_path / "8001.png")
    with pytest.raises(ValueError, match="96,000,000 pixels, more than the limit of 64,000,000; make it smaller, or"):
        read_picture(tmp_path / "12000.png")


def test_a_limit_beyond_what_pillow_finds_safe_is_not_reached(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_that_claims(12_000, 8_000))
    with pytest.raises(ValueError, match=r"a.png' has more pixels than are safe to open \(Image size \(96000000"):
        read_picture(tmp_path / "a.png", limit=10**9)


def test_the_limit_can_be_set(tmp_path: Path, photo: Image.Image) -> None:
    photo.save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", limit=24).size == (6, 4)
    with pytest.raises(ValueError, match="6 x 4 = 24 pixels, more than the limit of 23"):
        read_picture(tmp_path / "a.png", limit=23)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "bmp", "gif"])
def test_a_picture_cut_short_is_one_clear_line(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    for part in (3, 30, len(whole) // 2):
        path.write_bytes(whole[:part])
        with pytest.raises(ValueError, match=rf"a.{suffix}' is (damaged|not a picture)") as caught:
            read_picture(path)
        assert "\n" not in str(caught.value)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    for name in ("empty.png", "text.png"):
        with pytest.raises(ValueError, match=f"{name}' is not a picture that can be read"):
            read_picture(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"no file '.*gone.png'"):
        read_picture(tmp_path / "gone.png")
    with pytest.raises(IsADirectoryError, match="is a folder, not a picture; name a file in it"):
        read_picture(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a.png' is not an ordinary file"):
        read_picture(tmp_path / "a.png")


def test_odd_metadata_makes_no_noise_and_filters_stay(tmp_path: Path, photo: Image.Image) -> None:
    before = list(warnings.filters)
    for name in ("a.jpg", "a.png", "a.webp"):
        photo.save(tmp_path / name, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
        assert read_picture(tmp_path / name).size == (6, 4)
    assert warnings.filters == before


def test_find_pictures_lists_files_and_sorted_folders(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deeper.png").mkdir(parents=True)
    for name in ("b.JPG", "a.npy", "c.Tiff", ".hidden.png", "notes.txt"):
        (folder / name).touch()
    other = tmp_path / "z.dat"
    other.touch()
    inside = [folder / "a.npy", folder / "b.JPG", folder / "c.Tiff"]
    assert find_pictures([other, folder]) == [other, *inside]
    assert find_pictures([inside[2], str(folder), inside[0]]) == [inside[2], *inside[:2]]
    assert find_pictures(str(folder)) == inside


def test_find_pictures_names_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / ".a.png").touch()
    with pytest.raises(FileNotFoundError, match=r"holds no pictures .* folders inside it are not searched"):
        find_pictures([tmp_path])
    with pytest.raises(FileNotFoundError, match="no file or folder 'gone'"):
        find_pictures(["gone"])
    with pytest.raises(ValueError, match="no pictures given; name at least one file or folder"):
        find_pictures([])


def test_a_picture_becomes_the_networks_input(tmp_path: Path, photo: Image.Image) -> None:
    photo.save(tmp_path / "a.png")
    torch.testing.assert_close(read_input(tmp_path / "a.png", IMAGENET), IMAGENET(photo))
    assert read_input(tmp_path / "a.png", GREY).shape == (1, 4, 6)
    with pytest.raises(ValueError, match=r"a.png': a picture becomes 1, 3 or 4 channels, and mean and std are of 2"):
        read_input(tmp_path / "a.png", Preprocessing((0.0,) * 2, (1.0,) * 2))


@pytest.mark.parametrize("spatial", [(9,), (4, 5), (2, 3, 4), (2, 2, 2, 2)])
def test_an_array_is_taken_as_it_is_at_any_rank(tmp_path: Path, spatial: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=(3, *spatial))
    path = tmp_path / "a.npy"
    same = (values, values[None], np.asfortranarray(values), values.astype(">f4"), values.astype(np.float16))
    for saved in same:
        np.save(path, saved)
        read = read_input(path, IMAGENET)
        assert read.dtype == torch.float32
        torch.testing.assert_close(read, torch.tensor(values, dtype=torch.float32), atol=3e-3, rtol=0)
    np.save(path, values[:1])
    path.rename(tmp_path / "b.NPY")
    torch.testing.assert_close(read_input(tmp_path / "b.NPY", GREY), torch.tensor(values[:1], dtype=torch.float32))


def test_an_array_that_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    wrong = r"is \(.*\) where \(3, ...\) or \(1, 3, ...\) is needed; the preprocessing's mean and std have 3"
    for shape in ((2, 8), (8,), (), (2, 3, 8), (1, 1, 3, 8)):
        np.save(path, np.zeros(shape))
        with pytest.raises(ValueError, match=wrong):
            read_input(path, PLAIN)
    for broken in (np.nan, np.inf, 1e300):
        values = np.zeros((3, 4, 4))
        values[1, 2, 3] = broken
        np.save(path, values)
        with pytest.raises(ValueError, match=r"is broken: 1 values are NaN or infinite, first at \[1, 2, 3\]"):
            read_input(path, PLAIN)
    for values in (np.zeros((3, 2), complex), np.array([["a", "b"]] * 3), np.full((3, 2), 255, np.uint8)):
        np.save(path, values)
        with pytest.raises(
            ValueError, match=r"a.npy' holds .*; an array is what the model takes, normalized floating point"
        ):
            read_input(path, PLAIN)


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_a_hostile_array_runs_nothing_and_takes_no_memory(tmp_path: Path) -> None:
    path, mark = tmp_path / "a.npy", tmp_path / "ran"
    np.save(path, np.array([Hostile(mark)], object), allow_pickle=True)
    hostile = [
        path.read_bytes(),
        pickle.dumps(Hostile(mark)),
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff{",
    ]
    np.save(path, np.zeros((3, 4)))
    honest = path.read_bytes()
    huge = honest.replace(b"(3, 4), }        ", b"(3, 99999999999)}")
    assert huge != honest
    for content in (*hostile, huge, honest[:-8]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a.npy' is not an array of numbers in .npy: ") as caught:
            read_input(path, PLAIN)
        assert "\n" not in str(caught.value)
    assert not mark.exists()
    np.savez(tmp_path / "b", np.zeros(3))
    (tmp_path / "b.npz").rename(path)
    with pytest.raises(ValueError, match=r"is not an array of numbers in .npy"):
        read_input(path, PLAIN)
