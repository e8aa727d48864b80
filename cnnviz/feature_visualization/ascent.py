"""The climb towards an input that a model answers strongly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from cnnviz.engine.backward_rules import Rule
from cnnviz.engine.feature_extraction import Seen, View, slopes
from cnnviz.engine.layers import INPUT, Layer, layer_name
from cnnviz.engine.validation import check_finite
from cnnviz.feature_visualization.parameterizations import Canvas
from cnnviz.feature_visualization.robustness import Transformation
from cnnviz.images.bounds import Bounds
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.run.objectives import Objective
from cnnviz.run.run import Run
from cnnviz.run.targets import class_index

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    Picture = Tensor | str | Path | Image.Image


class Ascent:
    """A model, what its inputs look like, and the steps made towards better ones. All that a synthesis is handed.

    After every step there is an input to show; an interruption keeps the last of them.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        count: int = 1,
        size: int | Sequence[int] | None = None,
        seed: int = 0,
        preprocessing: Preprocessing | None = None,
        categories: tuple[str, ...] | None = None,
        progress: Callable[[int, int], None] | None = None,
        snapshots: int = 0,
    ):
        weight = next((each for each in model.parameters() if each.is_floating_point()), torch.zeros(()))
        first = next((module for module in model.modules() if isinstance(module, _ConvNd)), None)
        self.model = model
        self.count = count
        self.preprocessing = preprocessing
        self.categories = categories
        self.device, self.dtype = weight.device, weight.dtype
        self.generator = torch.Generator(self.device).manual_seed(seed)
        """The source of all randomness."""
        self.rank = len(first.kernel_size) if first is not None else 2 if isinstance(size, int | None) else len(size)
        self.asked_size = self._lengths(size)
        """The spatial size that was asked for, (*spatial); None where the synthesis may choose it."""
        self.history: list[Tensor] = []
        self.snapshots: dict[int, Tensor] = {}
        self.notes: dict[str, Tensor] = {}
        """What a synthesis measures on its way, for the user, (N, ...) by name."""
        self.names: dict[Layer, str] = {}
        self._first = first
        self._every, self._progress, self._expected = snapshots, progress, 0
        self._canvas: Canvas | None = None

    # What inputs look like

    @property
    def channels(self) -> int:
        """How many channels the model takes. Raises ValueError where nothing says it."""
        if self._first is not None:
            return self._first.in_channels
        if self.preprocessing is not None:
            return len(self.preprocessing.mean)
        name = type(self.model).__name__
        raise ValueError(f"{name} has no convolution that tells how many channels it takes; give a preprocessing")

    @property
    def size(self) -> tuple[int, ...]:
        """The spatial size asked for, or what the preprocessing makes of pictures. Raises ValueError for neither."""
        known = self.preprocessing.crop if self.preprocessing is not None and self.rank == 2 else None
        size = self.asked_size or known
        if size is None:
            name, example = type(self.model).__name__, (224, (224, 224), (16, 112, 112))[self.rank - 1]
            raise ValueError(f"the size of {name}'s input is not known; give it, such as size={example}")
        return size

    def shape(self, size: Sequence[int] | None = None) -> tuple[int, ...]:
        """Of all inputs together, (N, C, *spatial)."""
        return (self.count, self.channels, *(self.size if size is None else size))

    @property
    def bounds(self) -> Bounds:
        """Between which values inputs lie; at least float32, however coarsely the model counts."""
        kind = self.dtype if self.dtype in (torch.float32, torch.float64) else torch.float32
        return Bounds.of(self.preprocessing, torch.zeros(1, self.channels, device=self.device, dtype=kind))

    def given(self, picture: Picture) -> Tensor:
        """What a user handed over to begin with, as inputs (N, C, *spatial), one for each that is to be made.

        A picture is a file, a PIL image, or a tensor (C, *spatial) or (N, C, *spatial) as the model takes it.
        Raises TypeError, ValueError or OSError for what can't be read or does not fit.
        """
        inputs = picture if isinstance(picture, Tensor) else self._read(picture)
        if not inputs.is_floating_point() or inputs.ndim not in (self.rank + 1, self.rank + 2):
            raise ValueError(
                f"what is given is {inputs.dtype} {tuple(inputs.shape)}; {type(self.model).__name__} takes floating "
                f"point (N, {self.channels}, {('L', 'H, W', 'D, H, W')[self.rank - 1]})"
            )
        inputs = inputs if inputs.ndim == self.rank + 2 else inputs[None]
        if self.asked_size is not None and inputs.shape[2:] != self.asked_size:
            raise ValueError(f"size={self.asked_size} is asked for, and what is given is {tuple(inputs.shape[2:])}")
        check_finite(inputs, "what is given")
        if len(inputs) == 1:
            inputs = inputs.expand(self.count, *inputs.shape[1:])
        elif self.count == 1:
            self.count = len(inputs)
        if len(inputs) != self.count:
            raise ValueError(f"{len(inputs)} inputs are given, and {self.count} are to be made; give one, or as many")
        return inputs.detach().to(self.bounds.low).clone()

    def layer_name(self, layer: Layer) -> str:
        """The dotted name of a layer; None is the last one with spatial extent."""
        if layer not in self.names:
            example = torch.zeros(1, *self.shape()[1:], device=self.device, dtype=self.dtype) if layer is None else None
            self.names[layer] = layer_name(self.model, layer, () if example is None else (example,))
        return self.names[layer]

    def class_index(self, target: int | str) -> int:
        """A class's number, of itself or of its name."""
        return class_index(target, self.categories)

    def seen(self, inputs: Tensor, *layers: Layer) -> Seen:
        """One pass through the model, without gradients."""
        return View(self.model, layers, graph=False)(inputs.to(self.dtype))

    # The way up

    def expect(self, steps: int) -> None:
        """Say how many steps there will be in all, where one ``ascend`` is not all, for those who watch."""
        self._expected = steps

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
            transform: what the inputs must withstand: the model sees them through it, drawn anew for each step.
            where_flat: the rule under which inputs rise that the objective does not depend on where they are, as where
                no ReLU lets anything through.
            after: called after each step with its number, from 1, without gradients.

        Raises:
            ValueError: for an objective that is not (N,) or not finite, or that does not depend on the input.
        """
        if steps < 0:
            raise ValueError(f"steps={steps} is no number of steps; use 0 or more")
        self._canvas = canvas
        view = View(self.model, objective.layers, output=objective.reads_output)
        for step in range(1, steps + 1):
            reached: list[Tensor] = []

            def closure() -> Tensor:
                with torch.enable_grad():
                    inputs = canvas().to(self.dtype)
                    inputs = inputs if transform is None else transform(inputs, self.generator)
                    values, slope = self._slope(view, objective, inputs.detach(), where_flat)
                    risen = slopes((inputs * slope).sum(), canvas.parameters)
                for parameter, each in zip(canvas.parameters, risen, strict=True):
                    parameter.grad = -each
                reached.append(values)  # noqa: B023  # called within this step only
                return -values.sum()

            optimizer.step(closure)  # type: ignore[arg-type]  # torch says float; its optimizers take a tensor
            if after is not None:
                with torch.no_grad():
                    after(step)
            self.names |= view.names
            self._told(reached[0], steps - step)
        with torch.no_grad():
            return canvas().detach()

    @property
    def kept(self) -> Tensor | None:
        """The inputs as the last step left them; None before the first."""
        if self._canvas is None or not self.history:
            return None
        with torch.no_grad():
            return self._canvas().detach()

    def _slope(
        self, view: View, objective: Objective, inputs: Tensor, where_flat: Rule | None
    ) -> tuple[Tensor, Tensor]:
        """The objective, (N,), and which way inputs rise, (N, C, *spatial)."""
        inputs.requires_grad_()
        values: Any = objective(view(inputs))
        if not isinstance(values, Tensor) or values.shape != (len(inputs),):
            found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"{objective!r} gave {found}; it gives one number for each input, ({len(inputs)},)")
        if not bool(values.isfinite().all()):
            raise ValueError(
                f"{objective!r} is not finite after {len(self.history)} steps; take smaller ones, such as half the lr"
            )
        (slope,) = slopes(values.sum(), [inputs])
        if where_flat is not None:
            flat = ~slope.flatten(1).any(1)
            if bool(flat.any()):
                slope[flat] = Run(self.model, inputs.detach(), objective).gradient(INPUT, where_flat)[flat]
        return values.detach(), slope

    def _told(self, values: Tensor, left: int) -> None:
        self.history.append(values)
        done = len(self.history)
        kept = self.kept if self._every and done % self._every == 0 else None
        if kept is not None:
            self.snapshots[done] = kept
        if self._progress is not None:
            self._progress(done, max(self._expected, done + left))

    def _read(self, picture: Any) -> Tensor:
        from PIL import Image

        from cnnviz.images.files import read_input

        if isinstance(picture, str | bytes) or hasattr(picture, "__fspath__"):
            reads = True
        elif isinstance(picture, Image.Image):
            reads = False
        else:
            raise TypeError(f"a picture is a file, a PIL image or a tensor, not a {type(picture).__name__}")
        if self.preprocessing is None:
            raise TypeError("a picture is given, and no preprocessing; give that too, or a tensor (N, C, *spatial)")
        prepare = self.preprocessing
        if self.asked_size is not None and self.rank == 2:
            prepare = prepare.changed(size=(self.asked_size[0], self.asked_size[1]))
        return read_input(picture, prepare) if reads else prepare(picture)

    def _lengths(self, size: int | Sequence[int] | None) -> tuple[int, ...] | None:
        if size is None:
            return None
        lengths = (size,) * self.rank if isinstance(size, int) else tuple(size)
        if len(lengths) != self.rank or min(lengths) < 1:
            raise ValueError(
                f"size={size!r} is not that of an input of {type(self.model).__name__}; give one length, or "
                f"{self.rank} ({('L', 'H, W', 'D, H, W')[self.rank - 1]})"
            )
        return lengths
