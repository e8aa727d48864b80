"""Scores of variants by whole forward passes: the plain path, against which replays are verified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine.forward import ForwardHook, forward, layer_tensor, never_ran
from cnnviz.engine.layers import InputPlace, Site
from cnnviz.engine.meter import stage
from cnnviz.engine.model_inputs import ModelInputs
from cnnviz.engine.nested import mapped
from cnnviz.incremental.change import Change, Query
from cnnviz.incremental.player import Player
from cnnviz.incremental.recorded_pass import RecordedPass, keeps_output
from cnnviz.incremental.regions import Region, full
from cnnviz.incremental.tape import expanded


class WholePasses:
    """Variants of one input, scored by forward passes from the input on."""

    def __init__(self, query: Query, change: Change, record: RecordedPass | None):
        self.query, self.change, self.record = query, change, record
        self.times = 0 if record is None else record.times
        self._verified: dict[int, Tensor] = {}

    @cached_property
    def before(self) -> Tensor:
        """What variants differ from, (1, C, *spatial), as these passes compute it.

        Another memory format rounds otherwise. A model that compares two equal values would see them differ, if one of
        them were taken from a pass in that format.
        """
        if isinstance(self.change.site, InputPlace):
            return self.query.inputs[0]
        if self.record is not None and self.record.cache.ordinary:
            return self.record.output
        return self._met(self.change.site)

    @cached_property
    def unchanged(self) -> Tensor:
        """The score of the input itself, computed as ``scores`` computes those of variants, (1,)."""
        if self.record is not None and self.record.cache.ordinary:
            return self.record.score
        return self.passed(self.inputs(1), None, None, lambda: self.query.inputs[0])

    def scores(self, numbers: Sequence[int]) -> Tensor:
        """The scores of these variants, (K,), each of a pass of its own."""
        scores = []
        with stage(len(numbers)) as part:
            for number in numbers:
                scores.append(self._scores([number]))
                if part is not None:
                    part.advance(1)
        return torch.cat(scores)

    def verified(self, number: int) -> Tensor:
        """The score of one variant, (1,), computed once."""
        if number not in self._verified:
            self._verified[number] = self._scores([number])
        return self._verified[number]

    def _scores(self, numbers: Sequence[int]) -> Tensor:
        changed = self.change.drawn(numbers, self.before)
        return self.passed(self.inputs(len(numbers), changed), changed, None, lambda: self.drawn_inputs(numbers))

    def _met(self, site: Site) -> Tensor:
        """The layer's output, and in ``times`` how often it is called."""
        met: list[Tensor] = []
        self.times = 0

        def meet(module: nn.Module, args: Any, output: Any) -> None:
            self.times += 1
            if site.call in (0, self.times):
                met[:] = [layer_tensor(site.name, output).clone()]

        forward(self.query.model, self.query.inputs, hooks=[(site.name, meet)])
        if not met:
            raise never_ran(site.name)
        return met[0]

    def inputs(self, copies: int, changed: Tensor | None = None) -> ModelInputs:
        """All inputs of the model, of which it may write each; the first one changed, if that is the site."""
        inputs = ModelInputs.of(self.query.inputs)
        if changed is None or not isinstance(self.change.site, InputPlace):
            changed = expanded(inputs.first, copies).clone()
        return inputs.repeated(changed)

    def drawn_inputs(self, numbers: Sequence[int]) -> Tensor:
        """The model's first input for these variants, (K, C, *spatial)."""
        first = self.query.inputs[0]
        at_input = isinstance(self.change.site, InputPlace)
        return self.change.drawn(numbers, first) if at_input else expanded(first, len(numbers))

    def passed(
        self, inputs: ModelInputs, changed: Tensor | None, player: Player | None, drawn: Callable[[], Tensor]
    ) -> Tensor:
        """Scores (K,) read from one pass, whose layer's output is replaced unless the input was."""
        query, layers = self.query, dict[str, Tensor]()
        hooks: list[tuple[str, ForwardHook]] = [(name, keeps_output(layers, name)) for name in query.score_layers]
        if changed is not None and not isinstance(self.change.site, InputPlace):
            hooks.insert(0, (self.change.site.name, self._replaces(self.change.site, changed, player)))
        modes = [] if player is None else [player]
        output = forward(query.model, inputs, hooks=hooks, modes=modes, before=query.before, copy=False)
        output = output if player is None else mapped(full, output)
        return query.read(output, layers, len(inputs.first), drawn).detach()

    def _replaces(self, site: Site, changed: Tensor, player: Player | None) -> ForwardHook:
        calls, wanted = 0, site.call or self.times

        def replace(module: nn.Module, args: Any, output: Any) -> Tensor | None:
            nonlocal calls
            layer_tensor(site.name, output)
            calls += 1
            if calls != wanted:
                return None
            with torch._C.DisableTorchFunction():
                # what follows may write in place, and may look at strides, also at that of a batch of one
                ordinary = torch.contiguous_format
                copy = changed if isinstance(changed, Region) else changed.clone(memory_format=ordinary)
            if player is not None and self.record is not None:
                player.begin(copy, self.change.origin(self.record.output))
            return copy

        return replace
