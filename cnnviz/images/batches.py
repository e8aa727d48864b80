"""Many pictures a few at a time, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import torch
from torch import Tensor

from cnnviz.images.files import read_input
from cnnviz.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    from PIL import Image

Picture: TypeAlias = "str | Path | Image.Image | Tensor"
"""A file, a PIL image, or an input (C, *spatial) as the network takes it."""
T = TypeVar("T")


def in_batches(
    pictures: Iterable[tuple[T, Picture]],
    preprocessing: Preprocessing | None,
    most: int,
    unreadable: Callable[[Picture, Exception], None] | None = None,
) -> Iterator[tuple[list[T], Tensor]]:
    """Inputs (N, C, *spatial) of one size, N at most so many, with what each picture came with.

    A picture that cannot be read is told and left out; where nobody is told, its error is raised: OSError, ValueError.
    """
    tags: list[T] = []
    inputs: list[Tensor] = []
    for tag, picture in pictures:
        try:
            tensor = _prepared(picture, preprocessing)
        except (OSError, ValueError) as error:
            if unreadable is None:
                raise
            unreadable(picture, error)
            continue
        if inputs and (len(inputs) == most or inputs[0].shape != tensor.shape):
            yield tags, torch.stack(inputs)
            tags, inputs = [], []
        tags.append(tag)
        inputs.append(tensor)
    if inputs:
        yield tags, torch.stack(inputs)


def _prepared(picture: Picture, preprocessing: Preprocessing | None) -> Tensor:
    if isinstance(picture, Tensor):
        return picture
    if preprocessing is None:
        raise TypeError(f"a picture is a {type(picture).__name__}; without a preprocessing only tensors are taken")
    return read_input(picture, preprocessing) if isinstance(picture, str | Path) else preprocessing(picture)
