"""A change of the input or of a layer's output in several variants, and how their scores are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine.deferred import uploaded
from cnnviz.engine.forward import Head
from cnnviz.engine.layers import InputPlace, Site
from cnnviz.engine.model_inputs import AnyInputs
from cnnviz.incremental.boxes import Boxes, places
from cnnviz.incremental.tape import expanded

Read = Callable[[Any, dict[str, Tensor], int, Callable[[], Tensor]], Tensor]
"""From the model's output, layers by name, the number K of variants, and what draws their inputs, to scores (K,)."""


@dataclass(frozen=True, eq=False)
class Query:
    """One input, and how the score of its variants is read."""

    model: nn.Module
    inputs: AnyInputs
    """All that the model is called with, the tensors of the batch (1, ...) each."""
    read: Read
    apart: Callable[[int], bool] = lambda copies: True
    """Whether so many variants may pass through the model together, where the operations do not tell."""
    score_layers: Sequence[str] = ()
    """Layers that the score is read from."""
    before: Head | None = None


@dataclass(frozen=True, eq=False)
class Change:
    """Variants that replace the input or a layer's output, (1, C, *spatial), or a box of it."""

    site: Site | InputPlace
    """The call of a layer whose output is replaced, or INPUT."""
    count: int
    values: Callable[[Sequence[int]], Iterable[Tensor]]
    """From the numbers of variants to what each holds in its box, (C, *sides); without boxes (C, *spatial).

    It may be called again for the same variants, and must give the same.
    """
    boxes: Boxes | None = None
    """Where each variant differs; None: everywhere."""
    made_of: Tensor | None = None
    """The layer's output that the values were made of, if that differs by rounding from that of the query's pass."""
    alone: bool = False
    """True if variants can't be held together, because the layer's first dimension is not the batch alone."""
    coarse: bool = False
    """True if the known score and ``made_of`` were computed in less precision than variants are."""

    def origin(self, before: Tensor) -> Tensor:
        """The values that variants without a box were made of."""
        return before if self.made_of is None or self.coarse else self.made_of

    def drawn(self, numbers: Sequence[int], before: Tensor) -> Tensor:
        """These variants of ``before``, (K, C, *spatial)."""
        values = self.values(numbers)
        if self.boxes is None:
            variants = (values if isinstance(values, Tensor) else torch.stack(list(values))).to(before.dtype)
            if self.coarse and self.made_of is not None:
                # where nothing changes, what was rounded more coarsely is no part of the change
                variants = torch.where(variants == self.made_of, before, variants)
            return variants
        variants = expanded(before, len(numbers)).clone(memory_format=torch.contiguous_format)
        _set_boxes(variants, self.boxes.at_numbers(torch.tensor(numbers, device="cpu")), [*values])
        return variants


def _set_boxes(variants: Tensor, boxes: Boxes, values: Sequence[Tensor]) -> None:
    """Set each variant's box, all boxes of equal sides in one step: a GPU waits longer for many small ones."""
    together: dict[tuple[int, ...], list[int]] = {}
    for row, sides in enumerate((boxes.ends - boxes.begins).tolist()):
        together.setdefault(tuple(sides), []).append(row)
    maps, device = variants.flatten(2), variants.device
    channels = torch.arange(maps.shape[1], device=device)[:, None]
    for sides, rows in together.items():
        of = torch.tensor(rows, device="cpu")
        index = uploaded(places(boxes.begins[of], sides, boxes.size), device)
        inside = torch.stack([values[row].expand(maps.shape[1], *sides) for row in rows]).flatten(2)
        maps[uploaded(of, device)[:, None, None], channels, index[:, None]] = inside.to(maps)
