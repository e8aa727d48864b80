"""Scores of changed activations, at the price of what follows the layer.

Every operation of one pass is recorded once. A replay runs the model again and answers each call that does not descend
from the change with what was recorded, so only what the change reaches is computed: with any connections around the
layer, and under control flow, without a picture of the graph. The first change of every recording is also computed the
plain way; where the two differ, or where a pass writes into the model or leaves something with it, everything is
computed the plain way. A change that sends the model another way is computed the plain way itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cnnviz.engine import batching
from cnnviz.engine.agreement import STUMBLES, Departed, alike
from cnnviz.engine.forward import asking, lend
from cnnviz.engine.module_state import taken_back
from cnnviz.engine.trace import into_softmax
from cnnviz.incremental.tape import Player, Recorder, Softmaxes, expanded

Read = Callable[[Any, dict[str, Tensor]], Tensor]
"""From the model's output and watched layers to one score for each variant, (K,)."""


class Replay:
    """One input's pass, recorded, to be played again with other outputs of ``layer``.

    ``inputs`` are the model's, each for one item; ``watched`` are further layers that scores are read from.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Sequence[Tensor],
        layer: str,
        read: Read,
        watched: Sequence[str] = (),
        *,
        before_softmax: bool = False,
    ):
        self.model = model
        self.inputs = [each.detach() for each in inputs]
        self.layer = layer
        self.read = read
        self.watched = [name for name in watched if name != layer]
        self.before_softmax = before_softmax
        self.trusted: bool | None = None
        """Whether playing gives what the plain way gives; None while no change has told."""
        self.operations = 0
        """How many operations the last pass that was played computed."""
        self.output: Tensor
        """Of the layer, which changes are made of, (1, C, *spatial); as it is in this pass, unless it is put here."""
        self._record()

    def __call__(self, activations: Tensor) -> Tensor:
        """Scores (K,) with the layer's output replaced by each of ``activations`` (K, C, *spatial)."""
        if self.trusted is None:
            self._judge(activations[:1])
        if self.forks:  # where the model goes depends on values: variants must not decide for each other
            return torch.cat([self._scored(each) for each in activations[:, None]])
        return self._scored(activations)

    def _scored(self, activations: Tensor) -> Tensor:
        if not self.trusted:
            return self._plain(activations)
        try:
            return self._played(activations)
        except STUMBLES as error:
            if batching.is_out_of_memory(error):
                raise
            return self._plain(activations)

    def _judge(self, activation: Tensor) -> None:
        """One, then two at once: an expansion along a wrong dimension shows, and a model that mixes its batch.

        Alone it may be quicker still, if it changes one channel; the other of the two changes them all.
        """
        some = activation if self.forks else torch.cat([activation, activation * 0.5])
        plain = self._plain(some)
        try:
            alone = self._played(activation)
            played = torch.cat([alone, self._played(some)])
        except STUMBLES as error:
            if batching.is_out_of_memory(error):
                raise
            self.trusted = self.forks and isinstance(error, Departed)  # another change may not depart
            return
        self.trusted = alike(played - self.score, torch.cat([plain[:1], plain]) - self.score, self.score)
        if self.trusted:
            given = activation.numel() * activation.element_size()  # the change itself is kept too
            self.largest = max(1, given, self._played_bytes // len(some))

    def _record(self) -> None:
        times = 0
        shown: dict[str, Tensor] = {}
        inputs = self._given(1)
        recorder = Recorder(self.model, inputs)

        def begin(module: nn.Module, args: Any, output: Any) -> None:
            nonlocal times
            if not isinstance(output, Tensor):
                raise TypeError(
                    f"layer {self.layer!r} gives a {type(output).__name__}, not a tensor; "
                    "name one of the layers inside it (`cnnviz layers` lists them)"
                )
            times += 1
            recorder.begin(output)
            with torch._C.DisableTorchFunction():
                shown[self.layer] = self.output = output.clone()

        hooks: dict[str, Callable[..., Any]] = {self.layer: begin} | {
            name: recorder.shows(name, shown) for name in self.watched
        }
        watched = True
        try:
            output = ran(self.model, inputs, hooks, recorder, self.before_softmax)
        except STUMBLES as error:
            if batching.is_out_of_memory(error):
                raise
            watched = recorder.repeatable = False
        if not watched:  # which may be why it failed; if that was not it, the same error comes again
            times = 0
            output = ran(self.model, self._given(1), hooks, None, self.before_softmax)
        if not times:
            raise LookupError(f"layer {self.layer!r} did not run for this input; choose one that does")
        recorder.finish()
        self.score = self.read(output, shown)
        """Of the input itself, as replays find those of variants."""
        del output, inputs  # what is held now, the model holds
        recorder.forget()
        self.calls = recorder.calls
        self.times = times  # the layer is called; the last of them is changed
        self.forks = recorder.forks
        self.trusted = None if recorder.repeatable else False
        self.largest = recorder.largest
        """Bytes of the largest output of one variant that is computed."""

    def _played(self, activations: Tensor) -> Tensor:
        given = self._given(len(activations))
        player = Player(self.calls, len(activations), given)
        begin = partial(player.begin, before=self.output)
        score = self._passed(activations, given, begin, player)
        self.operations, self._played_bytes = player.computed, player.largest
        return score

    def _plain(self, activations: Tensor) -> Tensor:
        """A whole pass for each of them: whatever the model does with a batch, they do not decide for each other."""
        alone = activations[:, None]
        return torch.cat([self._passed(each, self._given(1), lambda changed: None, None) for each in alone])

    def _given(self, copies: int) -> list[Tensor]:
        """The model's inputs, of which it may write each."""
        return [expanded(each, copies).clone() for each in self.inputs]

    def _passed(
        self,
        activations: Tensor,
        given: Sequence[Tensor],
        begin: Callable[[Tensor], None],
        mode: TorchFunctionMode | None,
    ) -> Tensor:
        met = 0
        shown: dict[str, Tensor] = {}

        def change(module: nn.Module, args: Any, output: Any) -> Any:
            nonlocal met
            met += 1
            if met < self.times:
                return None
            with torch._C.DisableTorchFunction():
                changed = activations.clone()  # what follows may write in place
                shown[self.layer] = changed.clone()
            begin(changed)
            return changed

        def show(name: str) -> Callable[..., None]:
            def keep(module: nn.Module, args: Any, output: Any) -> None:
                with torch._C.DisableTorchFunction():
                    shown[name] = output.clone()

            return keep

        hooks = {self.layer: change} | {name: show(name) for name in self.watched}
        output = ran(self.model, given, hooks, mode, self.before_softmax)
        return self.read(output, shown)


def ran(
    model: nn.Module,
    inputs: Sequence[Tensor],
    hooks: dict[str, Callable[..., Any]],
    mode: TorchFunctionMode | None,
    before_softmax: bool,
) -> Any:
    """The output of one pass, or what went into its softmax; ``hooks`` see the layers' outputs, by name."""
    softmaxes = Softmaxes()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for name, hook in hooks.items():
            lend(stack, model.get_submodule(name).register_forward_hook, hook)
        stack.enter_context(asking(model, inputs[0]))
        stack.enter_context(taken_back(model))
        for each in (mode, softmaxes if before_softmax else None):
            if each is not None:
                stack.enter_context(each)
        output = model(*inputs)
    return into_softmax(type(model).__name__, output, softmaxes.met) if before_softmax else output
