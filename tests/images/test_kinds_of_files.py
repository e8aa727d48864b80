"""What people have on their disks: other formats, frames, arrays in archives, and files that are not what they seem."""

from __future__ import annotations

import io
import sys
import warnings
import zipfile
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features

from cnnviz import Preprocessing
from cnnviz.images import InputWarning, pixel_limit
from cnnviz.images.finding import find_pictures
from cnnviz.images.originals import opened
from cnnviz.images.reading import read_input, read_picture

PLAIN = Preprocessing((0.0,) * 3, (1.0,) * 3)
GREY = Preprocessing((0.0,), (1.0,))
HALF = Preprocessing((0.5,) * 3, (0.5,) * 3)
RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)


# Other formats


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_avif_is_read_and_found_in_folders(tmp_path: Path) -> None:
    Image.new("RGB", (32, 16), RED).save(tmp_path / "a.avif", quality=100)
    np.testing.assert_allclose(read_picture(tmp_path / "a.avif").getpixel((3, 3)), RED, atol=6)
    assert find_pictures(tmp_path) == [tmp_path / "a.avif"]
    with pytest.raises(ValueError, match="32 x 16 = 512 pixels, more than the limit of 511"):
        read_picture(tmp_path / "a.avif", limit=511)
    (tmp_path / "a.avif").write_bytes((tmp_path / "a.avif").read_bytes()[:150])
    with pytest.raises(ValueError, match=r"a.avif' is (damaged|not a picture)"):
        read_picture(tmp_path / "a.avif")


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def test_heic_names_the_extra_where_it_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnviz.images.reading.find_spec", lambda name: None)
    (tmp_path / "a.heic").write_bytes(HEIC)
    assert find_pictures(tmp_path) == [tmp_path / "a.heic"]
    with pytest.raises(ValueError, match=r"is HEIC, which needs: pip install 'cnnviz\[heic\]'; or save it as JPEG"):
        read_picture(tmp_path / "a.heic")


def test_heic_is_read_by_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def open_(file: Any, formats: object) -> Image.Image:
        asked.append(formats)
        return Image.new("RGB", (4, 2), BLUE)

    extra = ModuleType("pi_heif")
    extra.__spec__ = ModuleSpec("pi_heif", None)
    vars(extra)["register_heif_opener"] = lambda: asked.append("registered")
    monkeypatch.setitem(sys.modules, "pi_heif", extra)
    monkeypatch.setattr("cnnviz.images.reading.Image.open", open_)
    (tmp_path / "a.jpg").write_bytes(HEIC)  # content decides
    assert read_picture(tmp_path / "a.jpg").getpixel((0, 0)) == BLUE
    assert asked == ["registered", ("HEIF",)]
    with pytest.raises(ValueError, match="4 x 2 = 8 pixels, more than the limit of 7"):
        read_picture(tmp_path / "a.jpg", limit=7)


DICOM = bytes(128) + b"DICM"
OTHERS: dict[str, tuple[bytes, str]] = {
    "lfs.png": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "it is a pointer of Git LFS.* lfs pull",
    ),
    "page.jpg": (b"\xef\xbb\xbf\n <!DOCTYPE html><html>", r"it is a web page \(HTML\); download the file itself"),
    "old.jpg": (b"<HTML><body>", r"it is a web page \(HTML\)"),
    "empty.png": (b"", "it is empty; get or save it again"),
    "scan.dcm": (DICOM, "it is DICOM; read it with pydicom, and save .* as .npy"),
    "brain.nii.gz": (b"\x1f\x8b", "it is NIfTI; read it with nibabel, and save .* as .npy"),
    "brain.png": (bytes(344) + b"n+1\0", "it is NIfTI"),
    "a.jxl": (b"\xff\x0a1234", "it is JPEG XL; save it as PNG"),
    "a.svg": (b'<?xml version="1.0"?><svg>', "it is SVG, which has no pixels; save it as PNG"),
    "a.pdf": (b"%PDF-1.7", "it is a PDF; save its page as PNG"),
    "array.png": (b"\x93NUMPY\x01\0", "it is an array in .npy; give the file that suffix"),
    "packed.png": (b"PK\x03\x04", "it is an archive; arrays in one have the suffix .npz"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_picture_says_what_it_is(name: str, tmp_path: Path) -> None:
    content, told = OTHERS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}' is not a picture that can be read: {told}") as caught:
        read_picture(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["lfs.png", "page.jpg", "empty.png"])
def test_what_is_no_array_says_what_it_is(name: str, tmp_path: Path) -> None:
    content, told = OTHERS[name]
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.npy' is not an array of numbers in .npy: {told}"):
        read_input(tmp_path / "a.npy", PLAIN)


def test_tiffs_of_numbers_say_the_way_out(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    for name, values in (("double.tif", np.ones((4, 4))), ("colours.tif", np.ones((4, 4, 3), np.float32))):
        tifffile.imwrite(tmp_path / name, values, photometric="rgb" if values.ndim == 3 else "minisblack")
        with pytest.raises(ValueError, match=rf"{name}' is not a .* it is a TIFF .* such as float64"):
            read_picture(tmp_path / name)
    tifffile.imwrite(tmp_path / "signed.tif", np.ones((4, 4), np.int16))
    with pytest.raises(ValueError, match=r"whole numbers of 32 bits, or with a sign \(mode I\) .* save it with"):
        read_picture(tmp_path / "signed.tif")


@pytest.mark.parametrize("url", ["https://example.com/cat.jpg", "HTTP://example.com/a b.png", "s3://bucket/x.npy"])
def test_urls_are_not_fetched(url: str) -> None:
    told = f"^'{url.replace('HTTP', 'HTTP')}' is a URL, and URLs are not fetched; download it first, and give the file$"
    for read in (
        find_pictures,
        read_picture,
        lambda path: read_input(path, PLAIN),
        lambda path: read_picture(Path(path)),
    ):
        with pytest.raises(FileNotFoundError, match=told):
            read(url)


# Frames and pages


@pytest.mark.parametrize("suffix", ["gif", "tiff", "webp", "png"])
def test_a_frame_is_chosen_by_its_number(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"a.{suffix}"
    first, *rest = (Image.new("RGB", (6, 4), color) for color in (RED, GREEN, BLUE))
    first.save(file, save_all=True, append_images=rest, **({"lossless": True} if suffix == "webp" else {}))
    for number, color in enumerate((RED, GREEN, BLUE)):
        assert read_picture(f"{file}#{number}").getpixel((2, 2)) == color
        assert find_pictures(f"{file}#{number}") == [Path(f"{file}#{number}")]
        tensor, original = opened(f"{file}#{number}", PLAIN)
        assert original is not None
        assert original.picture().getpixel((2, 2)) == color
        torch.testing.assert_close(tensor[:, 2, 2], torch.tensor(color) / 255)
    assert read_picture(file).getpixel((2, 2)) == RED
    with pytest.raises(ValueError, match=rf"a.{suffix}' has no frame 3; they are numbered from 0"):
        read_picture(f"{file}#3")
    with pytest.raises(
        ValueError, match=rf"a.{suffix}#last' names no frame; they are numbered from 0, as in 'a.{suffix}#0'"
    ):
        read_picture(f"{file}#last")


def test_a_file_may_have_that_very_name(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), RED).save(tmp_path / "a.png")
    Image.new("RGB", (1, 1), BLUE).save(tmp_path / "b.png")
    (tmp_path / "b.png").rename(tmp_path / "a.png#0")
    assert read_picture(tmp_path / "a.png#0").getpixel((0, 0)) == BLUE
    with pytest.raises(FileNotFoundError, match=r"no file '.*gone.png#0'"):
        read_picture(tmp_path / "gone.png#0")


def test_a_page_larger_than_the_limit_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("L", (2, 2)).save(tmp_path / "a.tif", save_all=True, append_images=[Image.new("L", (9, 9))])
    assert read_picture(tmp_path / "a.tif", limit=50).size == (2, 2)
    with pytest.raises(ValueError, match="9 x 9 = 81 pixels, more than the limit of 50"):
        read_picture(f"{tmp_path / 'a.tif'}#1", limit=50)


# Bits


def test_gray_of_16_bits_keeps_them_whatever_is_done_to_it(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 900 + 7
    Image.fromarray(values).save(tmp_path / "a.png")
    for step, expected in (
        (Preprocessing((0.25,), (0.5,)), values),
        (Preprocessing((0.25,), (0.5,), crop=(4, 4)), values[2:6, 2:6]),
        (Preprocessing((0.25,), (0.5,), resize=16, interpolation="nearest"), values.repeat(2, 0).repeat(2, 1)),
    ):
        right = torch.from_numpy((expected / 65535 - 0.25) / 0.5)[None].float()
        for given in (tmp_path / "a.png", Image.open(tmp_path / "a.png")):
            torch.testing.assert_close(opened(given, step)[0], right, atol=1e-6, rtol=0)
    filled = Preprocessing((0.0,), (1.0,), crop=(10, 8), fill=(0.5,))(Image.fromarray(values))
    assert filled[0, 0].tolist() == pytest.approx([0.5] * 8, abs=1e-5)
    big_endian = Image.frombytes("I;16B", (8, 8), values.astype(">u2").tobytes())
    torch.testing.assert_close(GREY(big_endian)[0], torch.from_numpy(values / 65535).float())


def test_12_bits_in_16_are_told(tmp_path: Path) -> None:
    for highest in (4095, 4096, 255, 0):
        values = np.full((4, 4), highest, np.uint16)
        Image.fromarray(values).save(tmp_path / f"{highest}.png")
    told = "4095.png' has 16 bits and values up to 4095 of 65535, so it is nearly .* if 4095 is white, multiply by 16"
    with pytest.warns(InputWarning, match=told):
        read_picture(tmp_path / "4095.png")
    with pytest.warns(InputWarning, match="up to 255 of 65535, .* if 255 is white, multiply by 256"):
        read_input(tmp_path / "255.png", GREY)
    with pytest.warns(InputWarning, match="the picture has 16 bits"):
        opened(Image.fromarray(np.full((4, 4), 4095, np.uint16)), GREY)
    read_picture(tmp_path / "4096.png")  # a warning would be an error
    read_picture(tmp_path / "0.png")


# Arrays


def test_an_archive_of_one_array_is_that_array(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    np.savez(tmp_path / "one.npz", values)
    np.savez_compressed(tmp_path / "two.npz", first=values, second=values[None] / 2)
    torch.testing.assert_close(read_input(tmp_path / "one.npz", PLAIN), torch.from_numpy(values))
    torch.testing.assert_close(read_input(f"{tmp_path / 'two.npz'}#second", PLAIN), torch.from_numpy(values / 2))
    assert find_pictures(tmp_path) == [tmp_path / "one.npz", tmp_path / "two.npz"]
    with pytest.raises(ValueError, match=r"two.npz' holds 2 arrays: first, second; name one, as in 'two.npz#NAME'"):
        read_input(tmp_path / "two.npz", PLAIN)
    with pytest.raises(ValueError, match=r"two.npz' holds no array 'third'; it holds first, second"):
        read_input(f"{tmp_path / 'two.npz'}#third", PLAIN)


def test_an_item_of_a_batch_is_chosen_by_its_number(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((4, 3, 2, 5)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    for number in range(4):
        torch.testing.assert_close(
            read_input(f"{tmp_path / 'a.npy'}#{number}", PLAIN), torch.from_numpy(values[number])
        )
    with pytest.raises(ValueError, match=r"is needed; .* it is a batch of 4: give each as 'a.npy#0', 'a.npy#1', ..."):
        read_input(tmp_path / "a.npy", PLAIN)
    for wrong in ("4", "first"):
        with pytest.raises(ValueError, match=r"has no item 4 of a batch \(N, 3, ...\)|a.npy#first' names no item"):
            read_input(f"{tmp_path / 'a.npy'}#{wrong}", PLAIN)
    np.save(tmp_path / "last.npy", values[0].transpose(1, 2, 0))
    with pytest.raises(ValueError, match="its channels are last: move them to the front"):
        read_input(tmp_path / "last.npy", PLAIN)


def hostile_archives() -> dict[str, bytes]:
    def packed(header: bytes, data: bytes = b"") -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + data)
        return stream.getvalue()

    objects = io.BytesIO()
    np.savez(objects, a=np.array([[{}]], dtype=object))
    return {
        "huge": packed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 9000, 9000), }\n"),
        "cut short": packed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4, 4), }\n", b"1234"),
        "no header": packed(b"{'descr': "),
        "objects": objects.getvalue(),
        "no archive": b"PK\x03\x04",
        "text": b"hello",
    }


@pytest.mark.parametrize("case", hostile_archives())
def test_hostile_archives_are_one_line(case: str, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(hostile_archives()[case])
    with pytest.raises(ValueError, match=r"a\.npz'") as caught:
        read_input(tmp_path / "a.npz", PLAIN)
    assert "\n" not in str(caught.value)
    assert ("81,000,000 places, more than the limit" in str(caught.value)) == (case == "huge")


# Limits


def test_a_large_array_is_refused_before_it_is_read(tmp_path: Path) -> None:
    np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.float32, (3, 10_000, 8_000))  # holes: nothing on the disk
    told = r"80,000,000 places, more than the limit of 64,000,000; make it smaller, or raise the limit \(--limit"
    with pytest.raises(ValueError, match=told):
        read_input(tmp_path / "a.npy", PLAIN)


def test_the_limit_is_raised_inside_of_with(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.zeros((3, 6, 4)))
    before = Image.MAX_IMAGE_PIXELS
    assert before is not None
    with pixel_limit(23):
        for name in ("a.png", "a.npy"):
            with pytest.raises(ValueError, match=r"24 (pixels|places), more than the limit of 23"):
                read_input(tmp_path / name, PLAIN)
        with pixel_limit(before + 1):
            assert before + 1 == Image.MAX_IMAGE_PIXELS
            for name in ("a.png", "a.npy"):
                assert read_input(tmp_path / name, PLAIN).shape in ((3, 4, 6), (3, 6, 4))
        assert before == Image.MAX_IMAGE_PIXELS
        with pytest.raises(ValueError, match="more than the limit of 23"):
            read_picture(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").size == (6, 4)
    with pytest.raises(ValueError, match="a limit of 0 pixels leaves no picture"), pixel_limit(0):
        pass


# Values


def star(scale: Callable[[Any], Any]) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(0).random((3, 8, 8))
    values[:, 0, :2] = 0, 1
    return np.asarray(scale(values), np.float32)


ODD: dict[str, tuple[Callable[[Any], Any], str | None]] = {
    "0..255": (lambda x: x * 255, "has values far outside of what the preprocessing makes of pictures in 0..1; divide"),
    "0..255 from 1": (lambda x: 1 + x * 254, "far outside"),
    "-255..0": (lambda x: -255 * x, "far outside"),
    "0..1": (lambda x: x, "has values in 0..1, as pictures have them before they are normalized; subtract"),
    "normalized": (lambda x: (x - 0.5) / 0.5, None),
    "overshooting": (lambda x: (x * 1.2 - 0.6) / 0.5, None),
    "zero": (lambda x: x * 0, None),
    "one": (lambda x: x * 0 + 1, None),
}


@pytest.mark.parametrize("case", ODD)
def test_values_that_the_preprocessing_does_not_make_are_told(case: str, tmp_path: Path) -> None:
    scale, told = ODD[case]
    np.save(tmp_path / "a.npy", star(scale))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        read = read_input(tmp_path / "a.npy", HALF)
    torch.testing.assert_close(read, torch.from_numpy(star(scale)))  # told, and taken as it is
    assert len(found) == (told is not None)
    if told is not None:
        assert found[0].category is InputWarning
        assert told in str(found[0].message)
        assert f"array '{tmp_path / 'a.npy'}'" in str(found[0].message)


def test_nothing_is_known_of_signals_and_of_values_as_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", star(lambda x: x * 255))
    read_input(tmp_path / "a.npy", PLAIN)  # a warning would be an error
    np.save(tmp_path / "a.npy", star(lambda x: x * 255)[:, 0])
    read_input(tmp_path / "a.npy", HALF)
