"""How much one input takes in a forward pass: a fact of a model, remembered by the shapes of its inputs."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch

from cnnviz.engine.black_box import BlackBox
from cnnviz.engine.model_facts import facts_of
from cnnviz.engine.model_inputs import ModelInputs

UNSEEN = 24  # bytes of all outputs of a network, for each byte of its input, where nobody sees them


@dataclass(frozen=True)
class PassSize:
    """Bytes of the outputs of a pass, for each input, and its operations; 0 where the pass can't be observed."""

    total: int
    """Of all operations' outputs, which a graph keeps."""
    largest: int
    """Of the largest output: without a graph, an output is freed when the next but one is there."""
    operations: int = 0
    """How many operations gave a tensor; as many for several inputs that are passed together."""


def size_of(model: torch.nn.Module, inputs: ModelInputs, precision: torch.dtype | None) -> PassSize | None:
    """The size as an earlier pass found it, of a black box as is usual; None where it is not known yet."""
    if isinstance(model, BlackBox):
        bytes_of_input = inputs.first[0].numel() * inputs.first.element_size()
        return PassSize(UNSEEN * bytes_of_input, UNSEEN // 3 * bytes_of_input)
    size: PassSize | None = facts_of(model).get(_key(inputs, precision))
    return size


def remember_size(model: torch.nn.Module, inputs: ModelInputs, precision: torch.dtype | None, size: PassSize) -> None:
    """Keep what a pass of these inputs found, for later questions about inputs of these shapes."""
    facts_of(model)[_key(inputs, precision)] = size


def _key(inputs: ModelInputs, precision: torch.dtype | None) -> Hashable:
    tensors = [(tensor.shape[1:], tensor.dtype) for tensor in inputs.tensors]
    return "size", *tensors, precision
