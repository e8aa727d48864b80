"""How an explanation was computed: the options that travel with it, so that metrics ask the model in the same way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from cnnviz.engine.black_box import BlackBox
from cnnviz.engine.forward import Head
from cnnviz.engine.model_inputs import ModelInputs
from cnnviz.engine.speed import conv_bn_folding
from cnnviz.engine.speed.autocast import Precision, lower
from cnnviz.engine.speed.compilation import compiled
from cnnviz.engine.speed.precision_turns import hold_precision
from cnnviz.engine.validation import checked_seed
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.run.options import RunOptions


@dataclass(frozen=True)
class ExplainOptions:
    """Options of :func:`cnnviz.explain` that do not change what is explained; named and meant as there."""

    seed: int = 0
    memory: int | None = None
    """Bytes that inputs evaluated together may take; None for a share of what is free."""
    before_softmax: bool = False
    before_sigmoid: bool = False
    precision: Precision | None = None
    """What was asked for; :attr:`Explanation.computed_in` tells what it was."""
    fold: bool = False
    compile: bool | str = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", checked_seed(self.seed))
        if not isinstance(self.memory, int | float | None):
            raise TypeError(f"memory={self.memory!r} is no number of bytes; give one, such as 512 * 2**20, or None")

    @property
    def before(self) -> Head | None:
        """The last operation of the model whose input is explained. Raises ValueError for two of them."""
        if self.before_softmax and self.before_sigmoid:
            raise ValueError("the model ends in one operation; say before_softmax or before_sigmoid, not both")
        return "softmax" if self.before_softmax else "sigmoid" if self.before_sigmoid else None

    def prepare(
        self,
        model: nn.Module,
        inputs: ModelInputs,
        preprocessing: Preprocessing | None,
        categories: tuple[str, ...] | None,
    ) -> tuple[nn.Module, RunOptions]:
        """The network that is asked, a private copy if batch norms are folded, and the options of runs on it.

        ``inputs`` are all that the model is called with. Until this thread's question is answered, torch's flags for
        float32 on CUDA are as ``precision`` says, and questions that say otherwise wait. Raises ValueError where
        precision or folding can't be had, LookupError for a compiler that does not exist.
        """
        if isinstance(model, BlackBox) and (self.precision is not None or self.fold or self.compile):
            raise ValueError("a black box is called as it is; leave precision, fold and compile out")
        precision = lower(self.precision, model, inputs.first)
        hold_precision(inputs.first.device.type, self.precision)
        with torch.inference_mode(False):  # a graph cannot be passed by weights made in it
            folded = conv_bn_folding.fold(model, inputs) if self.fold else None
        network = folded.model if folded else model
        return network, RunOptions(
            preprocessing,
            categories,
            self.seed,
            self.memory,
            self.before,
            precision=precision,
            folded=folded,
            names=folded.names if folded else {},
            compiled=compiled(network, inputs, self.compile),
        )
