"""From pictures, as paths, folders, PIL images or arrays, to inputs of a model; and from data loaders to batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cnnviz.explanations.inputs import InputKey
from cnnviz.images.finding import find_pictures
from cnnviz.images.originals import Original, opened
from cnnviz.images.preprocessing import Preprocessing

INPUT_NAMES = ("pixel_values", "image", "images", "input", "inputs")  # of batches that are mappings
Originals: TypeAlias = tuple[Original | None, ...]
"""For each input of a batch the picture it was made of."""


def read_inputs(
    model: nn.Module, inputs: Any, preprocessing: Preprocessing | None
) -> tuple[Any, Mapping[InputKey, Originals]]:
    """Inputs in which every picture has become a tensor, and the originals by the number or name of the input.

    Pictures are files, folders of them, PIL images, and uint8 arrays (H, W), (H, W, 3), (H, W, 4) or (N, H, W, 3); one,
    or a list. An array of floating point is an input (N, C, *spatial). Values of a mapping may be pictures too. What
    is neither is left as it is. Raises TypeError for pictures without a preprocessing or beside tensors,
    ValueError and OSError for what can't be read.
    """
    if isinstance(inputs, Mapping):
        read = {key: read_inputs(model, each, preprocessing) for key, each in inputs.items()}
        return {key: each for key, (each, _) in read.items()}, {
            key: originals[0] for key, (_, originals) in read.items() if 0 in originals
        }
    if isinstance(inputs, np.ndarray):
        if inputs.dtype.kind == "f":
            return _like_weights(torch.from_numpy(np.ascontiguousarray(inputs)), model), {}
        several: list[Any] = list(inputs) if inputs.ndim == 4 else [inputs]
    else:
        several = list(inputs) if isinstance(inputs, tuple | list) else [inputs]
    if not any(_is_picture(each) for each in several):
        return inputs, {}
    other = next((type(each).__name__ for each in several if not _is_picture(each)), None)
    if other is not None:
        kind = next(type(each).__name__ for each in several if _is_picture(each))
        raise TypeError(f"the input is a {kind}, beside a {other}; give a list of pictures or a list of tensors")
    if preprocessing is None:
        kind = type(several[0]).__name__
        raise TypeError(f"the input is a {kind}; without a preprocessing only tensors (N, C, *spatial) are taken")
    read_pictures = [opened(each, preprocessing) for each in _listed(several)]
    sizes = {tuple(tensor.shape) for tensor, _ in read_pictures}
    if len(sizes) > 1:
        listed = " and ".join(map(str, sorted(sizes)[:2]))
        raise ValueError(
            f"the pictures become inputs of different sizes, {listed}, which are no batch; give the preprocessing a "
            "crop, or explain each by itself"
        )
    batch = torch.stack([tensor for tensor, _ in read_pictures])
    return _like_weights(batch, model), {0: tuple(original for _, original in read_pictures)}


def loaded_batches(loader: DataLoader[Any]) -> Iterator[Any]:
    """The inputs of each batch of a data loader; what comes with them, such as labels, is left out.

    Raises TypeError for a batch in which nothing says what the inputs are.
    """
    for batch in loader:
        if isinstance(batch, Mapping):
            key = next((name for name in INPUT_NAMES if name in batch), None)
            if key is None:
                raise TypeError(
                    f"a batch of the data loader has {', '.join(map(repr, batch))}, and none of them is called "
                    f"{', '.join(INPUT_NAMES)}; give explain() one batch after the other"
                )
            yield batch[key]
        else:
            yield batch[0] if isinstance(batch, tuple | list) else batch


def _is_picture(each: Any) -> bool:
    return isinstance(each, str | Path | Image.Image | np.ndarray)


def _listed(pictures: Sequence[Any]) -> list[Any]:
    """The pictures, those in folders too."""
    return [
        one
        for each in pictures
        for one in (find_pictures(each) if isinstance(each, str | Path) and Path(each).is_dir() else [each])
    ]


def _like_weights(batch: Tensor, model: nn.Module) -> Tensor:
    weight = next(model.parameters(), None)
    return batch if weight is None else batch.to(weight.device, weight.dtype)
