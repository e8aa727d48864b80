"""The file of a shard: what was found for its items, whole, in safetensors, with the same bytes for the same content.

``docs/batch.md`` describes the format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from cnnviz.datasets.shards.kept_maps import stored_as_float16
from cnnviz.engine.validation import COMPUTABLE

FORMAT = 1
KIND = "batch shard"
NO_CLASS = -2
"""Where there is no class, in ``target`` and ``predicted``; -1 speaks against a single class."""
BLANK_DIGEST = "0" * 64
HEAD = b'{"__metadata__":{"cnnviz":"{\\"sha256\\":\\"'
"""How the header of a shard begins, after its eight bytes of length; the digest follows."""

Column: TypeAlias = Tensor | Sequence[Tensor | None]
"""A tensor for each item: (n, ...) of one shape, or a list of them, with None for items that failed."""
Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class ShardContent:
    """What was found for the n items of a shard, in their order."""

    rows: Sequence[Row]
    """For each item ``id``, ``status`` ("ok" or "error"), and where they are known ``label``, ``class``, ``error``,
    ``sha256``, ``objective``; values that JSON has."""
    maps: Mapping[str, Column] = field(default_factory=dict)
    """By the name of the method, (C, *spatial) for each item. Those of failed items are left out."""
    notes: Mapping[str, Mapping[str, Column]] = field(default_factory=dict)
    """By the name of the method and of the note."""
    metrics: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """By the name of the method and of the metric, (n,); NaN where it is not known."""
    target: Tensor | None = None
    """(n,), the class explained; :data:`NO_CLASS` where there is none."""
    score: Tensor | None = None
    """(n,), NaN where it is not known."""
    probability: Tensor | None = None
    """(n,), NaN where it is not known."""
    predicted: Tensor | None = None
    """(n,), :data:`NO_CLASS` where it is not known."""
    predicted_probability: Tensor | None = None
    """(n,), NaN where it is not known."""
    boxes: Column | None = None
    """(B, 4) for each item: the detections explained."""
    input_shape: Column | None = None
    """(rank + 1,) for each item: C and the sides of the input."""
    box: Tensor | None = None
    """(n, 4), where the input lies in its original picture: left, top, right, bottom; 0 where there is none."""
    size: Tensor | None = None
    """(n, 2), height and width of the original picture; 0 where there is none."""

    @property
    def answered(self) -> list[bool]:
        """For each item whether it has maps."""
        return [row["status"] == "ok" for row in self.rows]


def pack(content: ShardContent, about: Mapping[str, Any], float16: bool = False) -> bytes:
    """The bytes of a shard's file, a function of what is given and of nothing else.

    Args:
        content: what was found. Numbers of failed items count as not known, whatever they are.
        about: values that JSON has: ``run``, ``shard``, ``first``, and ``explanations``, which tells of each method by
            name; what else is known of the shard goes with it.
        float16: keep 11 bits of each value of a map.

    Raises:
        ValueError: for content that does not belong together, and for values that are NaN or infinite.
    """
    answered = content.answered
    if not answered or len({row["id"] for row in content.rows}) < len(answered):
        raise ValueError(f"a shard of {len(answered)} items has no item, or one of them twice")
    explanations = {name: dict(told) for name, told in about["explanations"].items()}
    unknown = {*content.maps, *content.notes, *content.metrics} - set(explanations)
    if unknown:
        raise ValueError(f"a shard has maps of {', '.join(sorted(unknown))}, and does not tell what they are")
    tensors = _numbers(content, answered)
    for name, maps in content.maps.items():
        _add(tensors, f"maps/{name}", maps, answered, float16)
    for name, notes in content.notes.items():
        explanations[name] |= {"notes": sorted(notes)} if notes else {}
        for note, values in notes.items():
            _add(tensors, f"notes/{name}/{note}", values, answered)
    for name, metrics in content.metrics.items():
        explanations[name] |= {"metrics": sorted(metrics)} if metrics else {}
        for metric, values in metrics.items():
            key = f"metrics/{name}/{metric}"
            _put(tensors, key, _column(key, values, answered, torch.float64, (), float("nan")))
    told = {**about, "format": FORMAT, "kind": KIND, "items": len(answered), "explanations": explanations}
    return _with_digest(tensors, told)


def _numbers(content: ShardContent, answered: Sequence[bool]) -> dict[str, Tensor]:
    """One number or a few for each item, and the rows."""
    rows = "".join(compact(dict(row)) + "\n" for row in content.rows).encode()
    tensors = {
        "status": torch.tensor([not each for each in answered], dtype=torch.uint8),
        "rows": torch.frombuffer(bytearray(rows), dtype=torch.uint8),
    }
    kinds: dict[str, tuple[Tensor | None, torch.dtype, tuple[int, ...], float]] = {
        "target": (content.target, torch.int64, (), NO_CLASS),
        "predicted": (content.predicted, torch.int64, (), NO_CLASS),
        "score": (content.score, torch.float32, (), float("nan")),
        "probability": (content.probability, torch.float32, (), float("nan")),
        "predicted_probability": (content.predicted_probability, torch.float32, (), float("nan")),
        "box": (content.box, torch.float64, (4,), 0),
        "size": (content.size, torch.int64, (2,), 0),
    }
    for name, (values, dtype, shape, unknown) in kinds.items():
        tensors[name] = _column(name, values, answered, dtype, shape, unknown)
    columns: dict[str, Column | None] = {"boxes": content.boxes, "input_shape": content.input_shape}
    for name, column in columns.items():
        if column is not None:
            _add(tensors, name, column, answered)
    return tensors


def _column(
    name: str,
    values: Tensor | None,
    answered: Sequence[bool],
    dtype: torch.dtype,
    shape: tuple[int, ...],
    unknown: float,
) -> Tensor:
    """A column (n, *shape) with ``unknown`` where an item failed."""
    wanted = (len(answered), *shape)
    if values is None:
        return torch.full(wanted, unknown, dtype=dtype)
    if tuple(values.shape) != wanted:
        raise ValueError(f"{name} of a shard is {tuple(values.shape)}, not {wanted}")
    if not dtype.is_floating_point and values.is_floating_point():
        raise ValueError(f"{name} of a shard is {values.dtype}, not whole numbers")
    column = values.detach().cpu().to(dtype, copy=True)
    column[~torch.tensor(answered)] = unknown
    return column


def _add(tensors: dict[str, Tensor], key: str, values: Column, answered: Sequence[bool], float16: bool = False) -> None:
    """A column under ``key``; where its items differ in shape, flat, with their shapes and where they start."""
    if len(values) != len(answered):
        raise ValueError(f"{key} of a shard has {len(values)} items, not {len(answered)}")
    known = [(_plain(key, each) if ok else None) for each, ok in zip(values, answered, strict=True)]
    if any(ok and each is None for each, ok in zip(known, answered, strict=True)):
        raise ValueError(f"{key} of a shard has nothing for an item that was answered")
    found = [each for each in known if each is not None]
    if not found:
        return
    if len({(each.ndim, each.dtype) for each in found}) > 1:
        raise ValueError(
            f"{key} of a shard has items of different dimensions or types, which are no answers of one kind"
        )
    if len({each.shape for each in found}) == 1:
        column = torch.stack([found[0].new_zeros(found[0].shape) if each is None else each for each in known])
        if float16:
            column, scales = stored_as_float16(column)
            _put(tensors, f"scale/{key}", scales)
        _put(tensors, key, column)
        return
    none = found[0].new_zeros((0,) * found[0].ndim)
    every = [none if each is None else each for each in known]
    if float16:
        halves = [stored_as_float16(each[None]) for each in every]
        every = [half[0] for half, _ in halves]
        _put(tensors, f"scale/{key}", torch.cat([scale for _, scale in halves]))
    lengths = torch.tensor([each.numel() for each in every])
    _put(tensors, f"flat/{key}", torch.cat([each.flatten() for each in every]))
    _put(tensors, f"shapes/{key}", torch.tensor([list(each.shape) for each in every], dtype=torch.int64))
    _put(tensors, f"starts/{key}", lengths.cumsum(0) - lengths)


def _plain(key: str, values: Tensor | None) -> Tensor | None:
    """As it is stored: on the CPU, in float32, float64 or whole numbers.

    Raises ValueError for a map with NaN or infinities; a note may tell them.
    """
    if values is None:
        return None
    values = values.detach().cpu()
    if values.dtype in COMPUTABLE and values.dtype != torch.float64:
        values = values.float()
    if key.startswith("maps/") and not bool(values.isfinite().all()):
        raise ValueError(f"{key} of a shard has values that are NaN or infinite")
    return values.contiguous()


def _put(tensors: dict[str, Tensor], key: str, tensor: Tensor) -> None:
    if key in tensors:  # "a/b" of "c" and "b/c" of "a", for one
        raise ValueError(f"two columns of a shard have the name {key!r}; give a method another name")
    tensors[key] = tensor.contiguous()


def _with_digest(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    """The file, whose digest is of all its bytes with zeros in the digest's place."""
    from safetensors.torch import save

    text = f'{{"sha256":"{BLANK_DIGEST}",{compact(dict(about))[1:]}'
    # metadata are kept in a hash map, whose order differs between processes: there is one key
    content = save(dict(sorted(tensors.items())), {"cnnviz": text})
    place = 8 + len(HEAD)
    if content[8:place] != HEAD or content[place : place + 64] != BLANK_DIGEST.encode():
        raise RuntimeError("safetensors writes its header in another way than a shard needs")
    return content[:place] + hashlib.sha256(content).hexdigest().encode() + content[place + 64 :]


def verify(path: str | Path) -> str:
    """The digest of a shard's file, after all of its bytes were read and found to be what it tells.

    Raises ValueError for a file that is cut short or changed in any bit, or is no shard; OSError for one that can't
    be read.
    """
    place = 8 + len(HEAD)
    with Path(path).open("rb") as file:
        head = file.read(place + 64)
        if head[8:place] != HEAD or len(head) < place + 64:
            raise ValueError(f"{path} is no shard of a batch")
        found = hashlib.sha256(head[:place] + BLANK_DIGEST.encode())
        while block := file.read(1 << 20):
            found.update(block)
    told = head[place:]
    if found.hexdigest().encode() != told:
        raise ValueError(f"{path} is damaged: its content is not what its sha256 tells")
    return told.decode()


def compact(value: Any) -> str:
    """JSON without spaces, its keys in order. Raises ValueError for what JSON does not have."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except TypeError as error:
        raise ValueError(f"{str(value)[:80]} can't be written as JSON: {error}") from error
