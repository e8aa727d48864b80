"""The file of a shard: the same bytes for the same content, nothing lost, and every damage found."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from cnnviz.datasets import MapStorage
from cnnviz.datasets.shards.kept_maps import area_averaged, restored_from_float16, stored_as_float16
from cnnviz.datasets.shards.open_shard import OpenShard
from cnnviz.datasets.shards.shard_file import NO_CLASS, ShardContent, pack, verify

FAILED = 2
ABOUT: dict[str, Any] = {
    "run": "some run",
    "shard": 7,
    "first": 28,
    "explanations": {"b": {"recipe": "b()"}, "a/b": {"recipe": "a()"}},
    "disturbed": {"halved": True},
}


def rows() -> list[dict[str, Any]]:
    named = [{"id": f"düne/{number}.png", "status": "ok", "label": number} for number in range(4)]
    named[FAILED] |= {"status": "error", "error": "no picture: 'x'\nat all"}
    return named


def some_content() -> ShardContent:
    draws = torch.Generator().manual_seed(0)
    several = [torch.randn(1, 2 + item, 5, generator=draws) for item in range(4)]
    return ShardContent(
        rows=rows(),
        maps={"b": torch.randn(4, 2, 3, 3, generator=draws), "a/b": [*several[:FAILED], None, several[3]]},
        notes={"b": {"gap": torch.randn(4, generator=draws), "by layer": [*several[:FAILED], None, several[3]]}},
        metrics={"b": {"road": torch.tensor([0.1, 0.2, 0.3, float("nan")], dtype=torch.float64)}},
        target=torch.tensor([5, 3, 1, -1]),
        score=torch.tensor([1.5, 2.5, float("inf"), -1]),
        input_shape=[torch.tensor([3, 8, 9])] * 4,
        box=torch.full((4, 4), 1 / 3, dtype=torch.float64),
        size=torch.tensor([[30, 40]] * 4),
    )


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "000007.safetensors"
    path.write_bytes(pack(some_content(), ABOUT))
    return path


def test_what_is_packed_is_read(written: Path) -> None:
    given, shard = some_content(), OpenShard(written)
    assert shard.about["disturbed"] == {"halved": True}
    assert (shard.items, sorted(shard.methods)) == (4, ["a/b", "b"])
    for slot in range(4):
        assert shard.row(slot) == rows()[slot]
        assert int(shard.numbers("status")[slot]) == (slot == FAILED)
        if slot == FAILED:
            continue
        for method, maps in given.maps.items():
            assert torch.equal(shard.at(f"maps/{method}", slot), maps[slot])  # type: ignore[arg-type]  # it is there
        for note, values in given.notes["b"].items():
            assert torch.equal(shard.at(f"notes/b/{note}", slot), values[slot])  # type: ignore[arg-type]
        assert shard.numbers("box")[slot].tolist() == [1 / 3] * 4
        assert shard.at("input_shape", slot).tolist() == [3, 8, 9]
    assert shard.numbers("target").tolist() == [5, 3, NO_CLASS, -1]
    assert str(shard.numbers("score").tolist()) == "[1.5, 2.5, nan, -1.0]"
    assert str(shard.metric("b", "road").tolist()) == "[0.1, 0.2, nan, nan]"
    assert shard.numbers("predicted").tolist() == [NO_CLASS] * 4
    assert not shard.every("maps/b")[FAILED].any()  # type: ignore[union-attr]  # a tensor
    assert shard.told("b", "notes") == ("by layer", "gap")


def test_bytes_depend_on_the_content_alone(written: Path) -> None:
    first, content = written.read_bytes(), some_content()
    other = replace(
        content, maps=dict(reversed(content.maps.items())), notes={"b": dict(reversed(content.notes["b"].items()))}
    )
    turned = ABOUT | {"explanations": dict(reversed(ABOUT["explanations"].items()))}
    stuck = torch.ones(4, dtype=torch.float64)
    stuck[FAILED] = float("nan")  # what is said of a failed item is not kept
    for _ in range(10):
        assert pack(other, dict(reversed(turned.items()))) == first
    assert pack(replace(content, score=torch.tensor([1.5, 2.5, 0, -1])), ABOUT) == first
    assert pack(OpenShard(written).content(), {key: OpenShard(written).about[key] for key in ABOUT}) == first
    assert pack(replace(content, size=None), ABOUT) != first


def test_every_flipped_bit_and_every_cut_is_found(written: Path, tmp_path: Path) -> None:
    whole, damaged = written.read_bytes(), tmp_path / "damaged.safetensors"
    digest = json.loads((safetensors.safe_open(str(written), "pt").metadata() or {})["cnnviz"])["sha256"]  # type: ignore[no-untyped-call]
    assert verify(written) == digest
    places = [*range(0, 160), *range(160, len(whole), 7), len(whole) - 1]
    flipped = [whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :] for at in places]
    cut = [whole[:length] for length in (0, 7, 100, len(whole) // 2, len(whole) - 1)]
    for content in [*flipped, *cut, whole + b"\0"]:
        damaged.write_bytes(content)
        with pytest.raises(ValueError, match=r"is damaged|is no shard of a batch"):
            verify(damaged)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("peak", [1.0, 1e-7, 3e-30, 2e38, 1e-39])
def test_float16_keeps_eleven_bits_of_any_peak(dtype: torch.dtype, peak: float, tmp_path: Path) -> None:
    shares = torch.tensor([1.0, -0.7, 1e-3, -3e-5, 2e-8, 0.0], dtype=torch.float64)
    maps = (shares * peak).to(dtype).view(2, 1, 3)
    content = ShardContent(rows=rows()[:2], maps={"b": maps})
    path = tmp_path / "0.safetensors"
    path.write_bytes(pack(content, ABOUT, float16=True))
    read = OpenShard(path).every("maps/b")
    for before, after, peak_of_map in zip(maps.double(), read, maps.double().abs().amax((1, 2)), strict=True):  # type: ignore[arg-type]
        for value, kept in zip(before.flatten().tolist(), after.flatten().tolist(), strict=True):  # type: ignore[union-attr]
            finest = math.ldexp(peak_of_map, -40)  # as fine as the smallest of float16, beside the peak
            if dtype == torch.float32 and peak < 1e-38:
                finest = math.ldexp(1, -126 - 24)  # numbers too small to be normal have fewer bits themselves
            assert abs(kept - value) <= max(2**-11 * abs(value), finest)
    with safetensors.safe_open(str(path), "pt") as file:  # type: ignore[no-untyped-call]
        assert file.get_tensor("maps/b").dtype == torch.float16


def test_a_double_precision_map_is_kept_whole_and_float16_reaches_beyond_float32(tmp_path: Path) -> None:
    maps = torch.tensor([[[1e-200, 3e-200]], [[1e300, math.pi]]], dtype=torch.float64)
    for float16, slack in ((False, 0.0), (True, 2**-11)):
        path = tmp_path / "0.safetensors"
        path.write_bytes(pack(ShardContent(rows=rows()[:2], maps={"b": maps}), ABOUT, float16))
        kept = OpenShard(path).every("maps/b")
        assert torch.allclose(kept[0], maps[0], rtol=slack, atol=0)  # type: ignore[arg-type]
        assert kept[1][0, 0] == pytest.approx(1e300, rel=slack)  # type: ignore[index]


def test_scales_are_powers_of_two() -> None:
    stored, scales = stored_as_float16(torch.tensor([[3.0, 1e-9], [0.0, 0.0], [1e-45, 0.0]]))
    assert all(math.frexp(scale)[0] == 0.5 for scale in scales.tolist())
    assert stored[0, 0] == 3 * 2**13  # the peak of the map lies below 2^15
    assert restored_from_float16(stored, scales)[2, 0] == pytest.approx(1e-45, rel=1)
    assert not restored_from_float16(stored, scales)[1].any()


def slow_means(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Each new place: the old places, each by the share of it that lies inside."""
    rows_, columns = values.shape[-2:]
    answer = torch.zeros(*values.shape[:-2], *size, dtype=torch.float64)
    for row in range(size[0]):
        for column in range(size[1]):
            top, bottom = row * rows_ / size[0], (row + 1) * rows_ / size[0]
            left, right = column * columns / size[1], (column + 1) * columns / size[1]
            for y in range(rows_):
                for x in range(columns):
                    tall = max(0.0, min(bottom, y + 1) - max(top, y))
                    wide = max(0.0, min(right, x + 1) - max(left, x))
                    answer[..., row, column] += values[..., y, x].double() * tall * wide
            answer[..., row, column] /= (bottom - top) * (right - left)
    return answer


def test_areas_are_averaged() -> None:
    values = torch.randn(2, 3, 11, 8, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(area_averaged(values, (4, 3)).double(), slow_means(values, (4, 3)), atol=1e-6)
    assert torch.equal(area_averaged(values, (20, 8)), values)


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        (MapStorage(), lambda values: values),
        (MapStorage(channels="sum"), lambda values: values.sum(1, keepdim=True)),
        (MapStorage(channels="magnitude"), lambda values: values.abs().sum(1, keepdim=True)),
        (MapStorage(size=4), lambda values: slow_means(values, (4, 3)).float()),
        (MapStorage(channels="sum", size=20), lambda values: values.sum(1, keepdim=True)),
    ],
)
def test_less_of_a_map_is_kept_by_choice(storage: MapStorage, expected: Callable[[Tensor], Tensor]) -> None:
    values = torch.randn(2, 3, 11, 8, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(storage(values), expected(values), atol=1e-6)
    assert MapStorage(**storage.described()) == storage


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kept": "float8"}, "maps can't be kept as 'float8'; use full, float16"),
        ({"channels": "mean"}, "channels can't be kept as 'mean'; use all, sum, magnitude"),
        ({"size": 0}, "maps can't be kept at size 0; give a number of pixels, at least 1"),
        ({"size": True}, "maps can't be kept at size True"),
    ],
)
def test_what_keeps_no_map_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MapStorage(**wrong)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": []}, "has no item"),
        ({"rows": [rows()[0]] * 4}, "one of them twice"),
        ({"maps": {"c": torch.ones(4, 1, 2)}}, "has maps of c, and does not tell what they are"),
        ({"maps": {"b": torch.ones(3, 1, 2)}}, "maps/b of a shard has 3 items, not 4"),
        ({"maps": {"b": torch.full((4, 1, 2), float("nan"))}}, "maps/b of a shard has values that are NaN"),
        ({"maps": {"b": [None] * 4}}, "maps/b of a shard has nothing for an item that was answered"),
        ({"maps": {"b": [torch.ones(1)] * 3 + [torch.ones(1, 1)]}}, "items of different dimensions"),
        ({"target": torch.ones(4)}, "target of a shard is torch.float32, not whole numbers"),
        ({"score": torch.ones(4, 1)}, r"score of a shard is \(4, 1\), not \(4,\)"),
        ({"rows": [row | {"label": float("nan")} for row in rows()]}, "Out of range float values"),
        ({"rows": [row | {"label": b"1"} for row in rows()]}, "can't be written as JSON"),
        (
            {"notes": {"b": {"x": torch.ones(4)}, "a/b": {}}, "metrics": {}, "maps": {}},
            None,
        ),
    ],
)
def test_content_that_does_not_belong_together_is_refused(changes: dict[str, Any], message: str | None) -> None:
    content = replace(some_content(), **changes)
    if message is None:
        assert pack(content, ABOUT)
        return
    with pytest.raises(ValueError, match=message):
        pack(content, ABOUT)


def test_a_note_may_tell_what_is_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "0.safetensors"
    gap = torch.tensor([float("nan"), 1.0, 2.0, float("inf")])
    path.write_bytes(pack(replace(some_content(), notes={"b": {"gap": gap, "found": gap > 1}}), ABOUT))
    shard = OpenShard(path)
    assert str([float(shard.at("notes/b/gap", slot)) for slot in (0, 1, 3)]) == "[nan, 1.0, inf]"
    assert [bool(shard.at("notes/b/found", slot)) for slot in (0, 1, 3)] == [False, False, True]


def test_two_columns_of_one_name_are_refused() -> None:
    about = ABOUT | {"explanations": {"a": {"recipe": "a()"}, "a/b": {"recipe": "b()"}}}
    notes = {"a": {"b/c": torch.ones(4)}, "a/b": {"c": torch.ones(4)}}
    with pytest.raises(ValueError, match="two columns of a shard have the name 'notes/a/b/c'"):
        pack(ShardContent(rows=rows(), notes=notes), about)


def changed(path: Path, tensors: dict[str, Tensor | None], about: dict[str, Any]) -> None:
    """The shard with other tensors, None takes one away, and other words, as another program would have written it."""
    with safetensors.safe_open(str(path), "pt") as file:  # type: ignore[no-untyped-call]
        every = {name: file.get_tensor(name) for name in file.keys()} | tensors  # noqa: SIM118, not a mapping
        told = json.loads(file.metadata()["cnnviz"]) | about
    kept = {name: tensor.clone() for name, tensor in every.items() if tensor is not None}
    save_file(kept, path, {"cnnviz": json.dumps(told)})


def read_first_item(path: Path) -> None:
    shard = OpenShard(path)
    shard.row(0)
    for method in shard.methods:
        shard.at(f"maps/{method}", 0)


@pytest.mark.parametrize(
    ("tensors", "about", "message"),
    [
        ({}, {"format": 2}, "it has format 2, and this cnnviz reads 1; update cnnviz"),
        ({}, {"kind": "weights"}, "it is of another kind"),
        ({}, {"items": "4"}, "its items is '4'"),
        ({}, {"items": 5}, r"its status is U8 \[4\]"),
        ({}, {"items": 0}, "it tells of no items"),
        ({}, {"explanations": {"b": 3}}, "not what their explanations are"),
        ({"score": None}, {}, "it has no score"),
        ({"target": torch.ones(4)}, {}, r"its target is F32 \[4\]"),
        ({"rows": None}, {}, "it has no rows"),
        ({"rows": torch.zeros(3, dtype=torch.uint8)}, {}, "it has 0 rows for 4 items"),
        ({"rows": torch.tensor([*b"{}\n" * 4], dtype=torch.uint8)}, {}, "its row 0 has no id"),
        ({"rows": torch.tensor([*b"[\n" * 4], dtype=torch.uint8)}, {}, "its row 0 is no JSON"),
        ({"status": torch.ones(4, dtype=torch.uint8)}, {}, "its row 0 and its status say different things"),
        ({"maps/b": torch.full((4, 1, 2), float("inf"))}, {}, "its maps/b has values that are NaN or infinite"),
        ({"maps/b": torch.ones(0, 2)}, {}, r"its maps/b is \[0, 2\], for 4 items"),
        ({"scale/maps/b": torch.ones(4)}, {}, "its maps/b is torch.float32, its scale torch.float32"),
        ({"starts/maps/a/b": torch.tensor([10**9] * 4)}, {}, "item 0 of its maps/a/b reaches beyond what is there"),
        ({"shapes/maps/a/b": torch.full((4, 3), -1)}, {}, "item 0 of its maps/a/b reaches beyond what is there"),
        ({"shapes/maps/a/b": None}, {}, "it has no shapes/maps/a/b"),
        ({"starts/maps/a/b": torch.ones(4)}, {}, "its maps/a/b has no shapes"),
    ],
)
def test_nothing_of_a_file_is_believed(
    written: Path, tensors: dict[str, Tensor | None], about: dict[str, Any], message: str
) -> None:
    changed(written, tensors, about)
    with pytest.raises(ValueError, match=message) as raised:
        read_first_item(written)
    assert str(written) in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match=r"damaged|no shard"):
        verify(written)


@pytest.mark.parametrize("content", [b"", b"weights", b"\x02\0\0\0\0\0\0\0{}", b"\xff" * 40])
def test_a_file_of_something_else_is_told_in_a_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "000000.safetensors"
    path.write_bytes(content)
    for read in (OpenShard, verify):
        with pytest.raises(ValueError, match="no shard of a batch"):
            read(path)
    with pytest.raises(FileNotFoundError, match=r"the shard .* is not there"):
        OpenShard(tmp_path / "other")
