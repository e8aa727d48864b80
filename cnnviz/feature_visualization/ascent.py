"""Gradient ascent on the input of a model: the objective rises step by step (activation maximization)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from cnnviz.engine.backward_rules import Rule
from cnnviz.engine.draws import RandomNumbers
from cnnviz.engine.feature_extraction import FeatureExtractor, Seen, gradients_of
from cnnviz.engine.layers import INPUT, Layer, layer_name
from cnnviz.engine.validation import COMPUTABLE, check_dense, check_finite, check_weights_finite, checked_seed
from cnnviz.feature_visualization.parameterizations import Canvas
from cnnviz.feature_visualization.transformation_robustness import Transformation
from cnnviz.images.batches import Picture
from cnnviz.images.bounds import Bounds
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.images.reading import read_input
from cnnviz.run.objectives import Objective
from cnnviz.run.run import Run
from cnnviz.run.targets import class_index


class Ascent:
    """A model, the form of its inputs, and the steps made so far: all that a synthesis is handed.

    After every step there are inputs to show; an interruption keeps the last of them.
    """

    subject_of_methods = True  # of what methods are asked

    def __init__(
        self,
        model: nn.Module,
        *,
        count: int = 1,
        size: int | Sequence[int] | None = None,
        seed: int = 0,
        preprocessing: Preprocessing | None = None,
        categories: tuple[str, ...] | None = None,
        progress: Callable[[int, int], object] | None = None,
        snapshots: int = 0,
    ):
        weight = next((weight for weight in model.parameters() if weight.is_floating_point()), torch.zeros(()))
        first = next((module for module in model.modules() if isinstance(module, _ConvNd)), None)
        self.model = model
        self.count = count
        """How many inputs are to be made, N."""
        self.preprocessing = preprocessing
        self.categories = categories
        self.device, self.dtype = weight.device, weight.dtype
        seed = checked_seed(seed)
        self.draws = RandomNumbers(seed, device=self.device)
        """The source of all randomness: the same for the same seed, on every device."""
        self.generator = torch.Generator(self.device).manual_seed(seed)
        """A generator of torch's with the seed. It gives other values on each kind of device; see ``draws``."""
        self.rank = len(first.kernel_size) if first is not None else 2 if isinstance(size, int | None) else len(size)
        self.requested_size = self._lengths(size)
        """The spatial size that the user asked for, (*spatial); None where the synthesis may choose it."""
        self.history: list[Tensor] = []
        self.snapshots: dict[int, Tensor] = {}
        self.notes: dict[str, Tensor] = {}
        """Measurements for the user, (N, ...) by name; see :meth:`note`."""
        self.names: dict[Layer, str] = {}
        self._first = first
        self._every, self._progress, self._expected = snapshots, progress, 0
        self._canvas: Canvas | None = None

    # What inputs look like

    @property
    def channels(self) -> int:
        """How many channels the model takes. Raises ValueError where no convolution and no preprocessing says it."""
        if self._first is not None:
            return self._first.in_channels
        if self.preprocessing is not None:
            return len(self.preprocessing.mean)
        name = type(self.model).__name__
        raise ValueError(f"{name} has no convolution that tells how many channels it takes; give a preprocessing")

    @property
    def size(self) -> tuple[int, ...]:
        """The spatial size asked for, or else that of the preprocessing. Raises ValueError where there is neither."""
        known = self.preprocessing.input_size if self.preprocessing is not None and self.rank == 2 else None
        size = self.requested_size or known
        if size is None:
            name, example = type(self.model).__name__, (224, (224, 224), (16, 112, 112))[self.rank - 1]
            raise ValueError(f"the size of {name}'s input is not known; give it, such as size={example}")
        return size

    def shape(self, size: Sequence[int] | None = None) -> tuple[int, ...]:
        """The shape of all inputs together, (N, C, *spatial), of the given spatial size or of :attr:`size`."""
        return (self.count, self.channels, *(self.size if size is None else size))

    @property
    def bounds(self) -> Bounds:
        """The range of inputs for each channel, (C,), in float64 for models in float64 and else in float32."""
        dtype = self.dtype if self.dtype in (torch.float32, torch.float64) else torch.float32
        return Bounds.of(self.preprocessing, torch.zeros(1, self.channels, device=self.device, dtype=dtype))

    def inputs_from(self, picture: Picture) -> Tensor:
        """What the user handed over to begin with, as inputs (N, C, *spatial) of which nothing is shared.

        A picture is a file, a PIL image, or a tensor (C, *spatial) or (N, C, *spatial) as the model takes it. One is
        repeated ``count`` times; where ``count`` is 1, several are all taken. Raises TypeError, ValueError or OSError
        for what can't be read or does not fit.
        """
        inputs = picture if isinstance(picture, Tensor) else self._read(picture)
        check_dense(inputs, "what is given")
        if inputs.dtype not in COMPUTABLE or inputs.ndim not in (self.rank + 1, self.rank + 2):
            raise ValueError(
                f"what is given is {inputs.dtype} {tuple(inputs.shape)}; {type(self.model).__name__} takes floating "
                f"point (N, {self.channels}, {('L', 'H, W', 'D, H, W')[self.rank - 1]})"
            )
        inputs = inputs if inputs.ndim == self.rank + 2 else inputs[None]
        if self.requested_size is not None and inputs.shape[2:] != self.requested_size:
            raise ValueError(f"size={self.requested_size} is asked for, and what is given is {tuple(inputs.shape[2:])}")
        if inputs.numel() == 0:
            raise ValueError(f"what is given is {tuple(inputs.shape)}: there is nothing in it; give at least one input")
        check_finite(inputs, "what is given")
        if len(inputs) == 1:
            inputs = inputs.expand(self.count, *inputs.shape[1:])
        if self.count not in (1, len(inputs)):
            raise ValueError(f"{len(inputs)} inputs are given, and {self.count} are to be made; give one, or as many")
        return inputs.detach().to(self.bounds.low).clone()

    def layer_name(self, layer: Layer) -> str:
        """The dotted name of a layer; None is the last that is a place for a map. Raises LookupError for no layer."""
        if layer not in self.names:
            example = torch.zeros(1, *self.shape()[1:], device=self.device, dtype=self.dtype) if layer is None else None
            self.names[layer] = layer_name(self.model, layer, () if example is None else (example,))
        return self.names[layer]

    def class_index(self, target: int | str) -> int:
        """The number of a class, given by number or name. Raises LookupError for a name that is not known."""
        return class_index(target, self.categories)

    def seen(self, inputs: Tensor, *layers: Layer) -> Seen:
        """The outputs of layers and of the model for inputs (N, C, *spatial): one pass, without gradients."""
        return FeatureExtractor(self.model, layers, graph=False)(inputs.to(self.dtype))

    # The way up

    def expect(self, steps: int) -> None:
        """Set the total number of steps that progress is told of, for a synthesis that ascends several times."""
        self._expected = steps

    def note(self, name: str, values: Tensor) -> None:
        """Keep a measurement (N, ...) for the user under a name."""
        self.notes[name] = values

    def ascend(
        self,
        canvas: Canvas,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        steps: int,
        *,
        transform: Transformation | None = None,
        where_flat: Rule | None = None,
        after: Callable[[int], object] | None = None,
    ) -> Tensor:
        """Change the canvas step by step so that the objective rises; returns its inputs (N, C, *spatial), detached.

        Args:
            canvas: whose parameters the optimizer changes.
            objective: what is to be high, (N,).
            optimizer: of the canvas's parameters; it is asked to minimize the objective's negative.
            steps: how many.
            transform: the transformation that the inputs must be robust to; it is drawn anew for each step.
            where_flat: the backward rule for inputs whose gradient is zero everywhere, as where no ReLU is active.
            after: called after each step with its number, from 1, without gradients.

        Raises:
            ValueError: for an objective that is not (N,) or not finite, or that does not depend on the input.
        """
        if steps < 0:
            raise ValueError(f"steps={steps} is no number of steps; use 0 or more")
        self._canvas = canvas
        extractor = FeatureExtractor(self.model, objective.layers, output=objective.reads_output)
        for step in range(1, steps + 1):
            reached: list[Tensor] = []

            def closure() -> Tensor:
                with torch.enable_grad():
                    inputs = canvas().to(self.dtype)
                    inputs = inputs if transform is None else transform(inputs, self.draws)
                    values, gradient = self._gradient(extractor, objective, inputs.detach(), where_flat)
                    gradients = gradients_of((inputs * gradient).sum(), canvas.parameters)
                for parameter, rise in zip(canvas.parameters, gradients, strict=True):
                    parameter.grad = -rise
                reached.append(values)  # noqa: B023  # called within this step only
                return -values.sum()

            optimizer.step(closure)  # type: ignore[arg-type]  # torch says float; its optimizers take a tensor
            if after is not None:
                with torch.no_grad():
                    after(step)
            self.names |= extractor.names
            self._record(reached[0], steps - step)
        with torch.no_grad():
            return canvas().detach()

    @property
    def latest(self) -> Tensor | None:
        """The inputs (N, C, *spatial) as the last step left them; None before the first."""
        if self._canvas is None or not self.history:
            return None
        with torch.no_grad():
            return self._canvas().detach()

    def _gradient(
        self, extractor: FeatureExtractor, objective: Objective, inputs: Tensor, where_flat: Rule | None
    ) -> tuple[Tensor, Tensor]:
        """The objective, (N,), and its gradient at the inputs, (N, C, *spatial)."""
        inputs.requires_grad_()
        values: Any = objective(extractor(inputs))
        if not isinstance(values, Tensor) or values.shape != (len(inputs),):
            form = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"{objective!r} gave {form}; it gives one number for each input, ({len(inputs)},)")
        if not bool(values.isfinite().all()):
            check_weights_finite(self.model)
            raise ValueError(
                f"{objective!r} is not finite after {len(self.history)} steps; take smaller ones, such as half the lr"
            )
        (gradient,) = gradients_of(values.sum(), [inputs])
        if where_flat is not None:
            flat = ~gradient.flatten(1).any(1)
            if bool(flat.any()):
                gradient[flat] = Run(self.model, inputs.detach(), objective).gradient(INPUT, where_flat)[flat]
        return values.detach(), gradient

    def _record(self, values: Tensor, left: int) -> None:
        self.history.append(values)
        done = len(self.history)
        if self._every and done % self._every == 0 and (inputs := self.latest) is not None:
            self.snapshots[done] = inputs
        if self._progress is not None:
            self._progress(done, max(self._expected, done + left))

    def _read(self, picture: Any) -> Tensor:
        if not isinstance(picture, str | os.PathLike | Image.Image):
            raise TypeError(f"a picture is a file, a PIL image or a tensor, not a {type(picture).__name__}")
        if self.preprocessing is None:
            raise TypeError("a picture is given, and no preprocessing; give that too, or a tensor (N, C, *spatial)")
        prepare = self.preprocessing
        if self.requested_size is not None and self.rank == 2:
            prepare = prepare.changed(size=(self.requested_size[0], self.requested_size[1]))
        return prepare(picture) if isinstance(picture, Image.Image) else read_input(Path(picture), prepare)

    def _lengths(self, size: int | Sequence[int] | None) -> tuple[int, ...] | None:
        if size is None:
            return None
        lengths = tuple(size) if isinstance(size, Sequence) else (size,) * self.rank
        if len(lengths) != self.rank or not all(isinstance(length, int) and length > 0 for length in lengths):
            raise ValueError(
                f"size={size!r} is not that of an input of {type(self.model).__name__}; give one length, or "
                f"{self.rank} ({('L', 'H, W', 'D, H, W')[self.rank - 1]})"
            )
        return lengths
