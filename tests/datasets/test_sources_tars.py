"""WebDataset tars as sources: the items that tarfile reads from end to end, each reached by its place."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnviz.datasets import Item, class_of_labels, source_from_described, source_of
from cnnviz.images.originals import opened
from cnnviz.images.preprocessing import IMAGENET

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def picture(number: int, suffix: str = "jpeg") -> bytes:
    values = np.random.default_rng(number).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, suffix)
    return stream.getvalue()


def write(path: Path, members: Mapping[str, bytes], format: str = "pax") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=FORMATS[format]) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    members = {
        "cats/0001.jpg": picture(1),
        "cats/0001.cls": b"281\n",
        "cats/0001.seg.png": picture(9, "png"),
        "./cats/0002.JPG": picture(2),
        "./cats/0002.json": json.dumps({"label": "tabby", "width": 3}).encode(),
        "dogs/0001.png": picture(3, "png"),
        "dogs/0001.txt": b"a dog",
        "dogs/0002.webp": picture(4, "webp"),
        "notes.md": b"text",
    }
    return write(tmp_path / "data" / "train-0000.tar", members)


def test_a_tar_gives_its_pictures_and_labels_by_key(tar: Path) -> None:
    source = source_of(tar)
    items = list(source.items())
    assert [(item.id, item.label) for item in items] == [
        ("cats/0001", "281"),
        ("cats/0002", "tabby"),
        ("dogs/0001", "a dog"),
        ("dogs/0002", None),
    ]
    assert list(source.items()) == items
    assert source.notes == ("left out 2 members of the tars (.md, .seg.png)",)
    assert [item.label for item in source_of(tar, labels="folder").items()] == ["cats", "cats", "dogs", "dogs"]
    assert {item.label for item in source_of(tar, labels=None).items()} == {None}


@pytest.mark.parametrize("format", FORMATS)
def test_an_item_is_what_tarfile_reads_there(tmp_path: Path, format: str) -> None:
    """From any thread, in another process, and from where another machine has the tars."""
    names = ["a/0.jpg", "a/ü.png", f"{'long/' * 30}name.jpg", f"{'n' * 90}.png"]
    if format != "ustar":
        names.append(f"{'m' * 150}.png")
    members = {name: picture(n, "png" if name.endswith("png") else "jpeg") for n, name in enumerate(names)}
    path = write(tmp_path / "here" / "t.tar", members, format)
    items = list(source_of(path).items())
    described = source_of(path).described()
    path = path.rename(tmp_path / "t.tar")
    source = source_from_described(json.loads(json.dumps(described | {"root": str(tmp_path)})))
    source = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(4) as threads:
        read = list(threads.map(source.open, items * 8))
    with tarfile.open(path) as tar:
        expected = [np.asarray(Image.open(tar.extractfile(name) or io.BytesIO())) for name in names]
    assert len(items) == len(names)
    for image, values in zip(read, expected * 8, strict=True):
        assert np.array_equal(np.asarray(image), values)


def test_a_picture_in_a_tar_is_the_input_that_its_file_is(tmp_path: Path) -> None:
    """Turned as its EXIF says, and with all of 16 bits."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, deep = io.BytesIO(), io.BytesIO()
    Image.open(io.BytesIO(picture(0))).save(turned, "JPEG", exif=exif)
    Image.fromarray(np.arange(300, dtype=np.uint16).reshape(15, 20) * 200).save(deep, "PNG")
    members = {"turned.jpg": turned.getvalue(), "deep.png": deep.getvalue()}
    source = source_of(write(tmp_path / "t.tar", members))
    for item, (name, content) in zip(source.items(), members.items(), strict=True):
        (tmp_path / name).write_bytes(content)
        of_tar, original = opened(source.open(item), IMAGENET)  # type: ignore[arg-type]
        of_file, same = opened(tmp_path / name, IMAGENET)
        assert of_tar.equal(of_file)
        assert original is not None
        assert same is not None
        assert (original.size, original.box) == (same.size, same.box)


def test_several_tars_are_named_by_a_pattern(tmp_path: Path) -> None:
    for number in (9, 10, 11):
        write(tmp_path / f"train-{number:04d}.tar", {f"{number:02d}{letter}.jpg": picture(number) for letter in "ab"})
    expected = ["09a", "09b", "10a", "10b", "11a", "11b"]
    for pattern in ("train-{0009..0011}.tar", "train-*.tar", "train-00{09,1{0,1}}.tar", "t*-{0009,0010,0011}.tar"):
        assert [item.id for item in source_of(str(tmp_path / pattern)).items()] == expected
    backwards = [tmp_path / "train-0011.tar", tmp_path / "train-0009.tar"]
    assert [item.id for item in source_of(backwards).items()] == ["11a", "11b", "09a", "09b"]
    with pytest.raises(FileNotFoundError, match=r"2 of 5 tars are not there, such as '.*train-0012.tar'"):
        source_of(str(tmp_path / "train-{0009..0013}.tar"))
    with pytest.raises(FileNotFoundError, match="no file is named like"):
        source_of(str(tmp_path / "val-*.tar"))
    with pytest.raises(ValueError, match="is named twice"):
        source_of([backwards[0], backwards[0]])


def test_keys_of_several_tars_have_the_names_of_these_before_them(tmp_path: Path) -> None:
    first = write(tmp_path / "a" / "1.tar", {"0.jpg": picture(0), "1.jpg": picture(1)})
    second = write(tmp_path / "b" / "1.tar", {"0.jpg": picture(2)})
    source = source_of([first, second])
    items = list(source.items())
    assert [item.id for item in items] == ["a/1/0", "a/1/1", "b/1/0"]
    assert source.notes == ("the key '0' is in several tars, so ids begin with the name of the tar",)
    values = [np.asarray(Image.open(io.BytesIO(picture(number)))) for number in range(3)]
    assert all(np.array_equal(np.asarray(source.open(item)), each) for item, each in zip(items, values, strict=True))


@pytest.mark.parametrize(
    "names", [("1.jpg", "1.png"), ("1.a.jpg", "1.b.jpg"), ("ILSVRC2012.val.1.JPEG", "ILSVRC2012.val.2.JPEG")]
)
def test_several_pictures_of_one_key_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    path = write(tmp_path / "t.tar", {name: picture(0) for name in names})
    key = names[0].partition(".")[0]
    with pytest.raises(ValueError, match=f"'{names[0]}' and '{names[1]}' are two pictures of the key '{key}'"):
        list(source_of(path).items())


def test_texts_are_labels_where_all_of_them_are_classes(tmp_path: Path) -> None:
    """Else they are captions."""

    def classes(*texts: str) -> list[int | None]:
        members = {f"{n}.jpg": picture(n) for n in range(len(texts))}
        path = write(tmp_path / "t.tar", members | {f"{n}.txt": text.encode() for n, text in enumerate(texts)})
        source = source_of(path)
        items = list(source.items())
        found = class_of_labels(source, items, ("tench", "tabby cat"))
        return [found.of(item) for item in items]

    assert classes("tench", "tabby_cat\n", "tench") == [0, 1, 0]
    assert classes("tench", "a tabby on a mat") == [None, None]
    assert classes("1", "0") == [1, 0]


def test_a_tar_that_is_cut_short_anywhere_is_one_line(tmp_path: Path) -> None:
    whole = write(tmp_path / "t.tar", {f"{n}.jpg": picture(n) for n in range(3)}, "ustar").read_bytes()
    end = len(whole.rstrip(b"\0"))
    cut = tmp_path / "cut.tar"
    for size in (0, 100, 512, 600, 1024, end // 2, end - 1, -(-end // 512) * 512):
        cut.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="is damaged or cut short: ") as raised:
            list(source_of(cut).items())
        assert "\n" not in str(raised.value)
    damaged = bytearray(whole)
    with tarfile.open(tmp_path / "t.tar") as tar:
        place = tar.getmembers()[1].offset
    damaged[place : place + 8] = b"\xff" * 8
    for content, told in ((damaged, f"at byte {place} no member begins"), (whole + whole, "goes on behind its end")):
        cut.write_bytes(content)
        with pytest.raises(ValueError, match=told):
            list(source_of(cut).items())


def test_a_tar_that_has_changed_gives_no_other_picture(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tar", {"0.bmp": picture(0, "bmp"), "1.bmp": picture(1, "bmp")})
    source = source_of(path)
    first, second = source.items()
    write(path, {"1.bmp": picture(1, "bmp"), "0.bmp": picture(0, "bmp")})
    for item in (first, second):
        with pytest.raises(ValueError, match=r"'t.tar' has changed since it was listed: '.\.bmp' is not in its"):
            source.open(item)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="has changed"):
        source.open(first)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no tar 't.tar'"):
        source.open(first)
    with pytest.raises(ValueError, match="'x' has no place in a tar"):
        source.open(Item("x"))


def test_a_damaged_picture_costs_its_row(tmp_path: Path) -> None:
    source = source_of(write(tmp_path / "t.tar", {"0.jpg": picture(0)[:200], "1.jpg": b"<html>", "2.jpg": picture(2)}))
    broken, page, whole = source.items()
    with pytest.raises(ValueError, match=r"picture '0.jpg' is damaged"):
        source.open(broken)
    with pytest.raises(ValueError, match=r"'1.jpg' is not a picture that can be read: it is a web page"):
        source.open(page)
    assert np.asarray(source.open(whole)).shape == (9, 12, 3)


def test_what_is_no_tar_of_pictures_is_refused(tar: Path, tmp_path: Path) -> None:
    packed = tmp_path / "t.tar.gz"
    packed.write_bytes(gzip.compress(tar.read_bytes()))
    with pytest.raises(ValueError, match=r"is compressed, and a picture in it can't be reached .* gunzip '.*t.tar.gz'"):
        list(source_of(packed).items())
    with pytest.raises(ValueError, match=r"the tars hold no pictures .*they hold \.md"):
        list(source_of(write(tmp_path / "t.tar", {"1.md": b"text"})).items())
    (tmp_path / "t.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(ValueError, match="is damaged or cut short"):
        list(source_of(tmp_path / "t.tar").items())


def test_a_table_and_masks_are_found_by_keys(tar: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label\ncats/0001,3\ncats/0002,1\ndogs/0001,0\ndogs/0002,\n")
    (tmp_path / "masks" / "cats").mkdir(parents=True)
    (tmp_path / "masks" / "cats" / "0002.png").write_bytes(picture(0, "png"))
    source: Any = source_of(tar, labels=tmp_path / "labels.csv", masks=tmp_path / "masks")
    items = list(source.items())
    assert [item.label for item in items] == ["3", "1", "0", None]
    assert [item.mask for item in items] == [None, "cats/0002.png", None, None]
    assert source.mask_file(items[1]) == tmp_path / "masks" / "cats" / "0002.png"


def test_links_in_a_tar_are_left_out_and_told(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tar", {"0.jpg": picture(0)})
    with tarfile.open(path, "a") as tar:
        for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.jpg")
            info.type, info.linkname = kind, "0.jpg"
            tar.addfile(info)
    source = source_of(path)
    assert [item.id for item in source.items()] == ["0"]
    assert source.notes == ("left out 2 members of the tars (links, and files with holes)",)
