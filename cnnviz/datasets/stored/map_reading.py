"""Maps of many items in one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnnviz.datasets.shards.kept_maps import area_averaged
from cnnviz.datasets.shards.open_shard import OpenShard
from cnnviz.datasets.stored.run_folder import NoAnswer, RunFolder
from cnnviz.explanations.evidence_maps import SIGNS
from cnnviz.images.resampling import resize

if TYPE_CHECKING:
    from cnnviz.explanations.evidence_maps import Sign

FEW = 8
"""Of so many maps of a shard each is read alone."""


def maps_of(
    folder: RunFolder,
    numbers: range | NDArray[np.int64],
    method: str,
    size: Sequence[int] | None = None,
    sign: Sign | None = None,
) -> Tensor:
    """As :meth:`cnnviz.datasets.Batch.maps`."""
    if sign is not None and sign not in SIGNS:
        raise ValueError(f"there is no sign {sign!r}; use {', '.join(SIGNS)}")
    if size is not None and not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(f"size={size!r} is no size of maps; give (height, width)")
    whole: Tensor | None = None
    for shard, slots, places in folder.by_shard(numbers):
        if shard is None:
            raise NoAnswer(f"{folder.item(int(numbers[places[0]])).id!r} is not computed yet; batch.answered has maps")
        failed = np.flatnonzero(shard.numbers("status").numpy()[slots])
        if failed.size:
            item = folder.item(int(numbers[places[failed[0]]]))
            raise NoAnswer(f"{item.id!r} failed and has no map; batch.answered has maps")
        for slot, place in zip(slots.tolist(), places.tolist(), strict=True):
            folder.checked(shard, slot, int(numbers[place]))
        maps = _resized(_read(shard, method, slots, sign), size, shard)
        if whole is None:
            whole = maps.new_zeros((len(numbers), *maps.shape[1:]))
        if maps.shape[1:] != whole.shape[1:]:
            raise _differ(shard, maps, whole)
        whole[torch.from_numpy(places)] = maps.to(whole.dtype)
    if whole is None:
        raise ValueError("there are no maps of no items")
    return whole


def _read(shard: OpenShard, method: str, slots: NDArray[np.int64], sign: Sign | None) -> list[Tensor]:
    key = f"maps/{method}"
    if not shard.has(key):
        raise NoAnswer(f"{shard.path} has no maps of {method}")
    if len(slots) > FEW:
        every = shard.every(key)
        maps = [every[slot] for slot in slots.tolist()]
    else:
        maps = [shard.at(key, slot) for slot in slots.tolist()]
    found = [each for each in maps if each is not None]
    if sign is None:
        return found
    return [_evidence(shard, method, slot, each, sign) for slot, each in zip(slots.tolist(), found, strict=True)]


def _evidence(shard: OpenShard, method: str, slot: int, values: Tensor, sign: Sign) -> Tensor:
    """One map (1, *spatial) of (C, *spatial), as :func:`cnnviz.explanations.evidence` makes it, at its own size."""
    told = shard.about["explanations"][method].get("fine")
    fine = told if told is not None else shard.at("input_shape", slot).tolist() == list(values.shape)
    if sign == "magnitude" or (sign == "auto" and fine):
        return values.abs().sum(0, keepdim=True)
    single = values.sum(0, keepdim=True)
    return single if sign == "signed" else single.relu()


def _resized(maps: list[Tensor], size: Sequence[int] | None, shard: OpenShard) -> Tensor:
    if size is None:
        other = next((each for each in maps if each.shape != maps[0].shape), None)
        if other is not None:
            raise _differ(shard, maps[0][None], other[None])
        return torch.stack(maps)
    if len({each.shape for each in maps}) == 1:
        return resampled(torch.stack(maps), size)
    return torch.cat([resampled(each[None], size) for each in maps])


def resampled(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (N, C, *spatial) at another spatial size: longer axes are averaged over areas, shorter ones interpolated."""
    if maps.ndim != 2 + len(size):
        raise ValueError(f"size={tuple(size)} is of {len(size)} dimensions, and the maps are {tuple(maps.shape)}")
    reduced = area_averaged(maps, size)
    return reduced if reduced.shape[2:] == tuple(size) else resize(reduced, size)


def _differ(shard: OpenShard, maps: Tensor, others: Tensor) -> ValueError:
    first, second = (" x ".join(map(str, each.shape[1:])) for each in (maps, others))
    return ValueError(
        f"maps differ in shape, {first} and {second} (in {shard.path}); give a size, such as size=(16, 16)"
    )
