"""A recorded pass, played again with regions: computed where a rule knows how, on full maps elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from cnnviz.engine.agreement import Departed
from cnnviz.engine.nested import mapped, tensors
from cnnviz.incremental.region_cache import Chunk, Norm
from cnnviz.incremental.region_rules import CONVOLUTIONS, local
from cnnviz.incremental.regions import Region
from cnnviz.incremental.tape import Call, Player, marked, same_path


class RegionPlayer(Player):
    """Computes regions where there is a rule for it, and full maps elsewhere."""

    def __init__(self, chunk: Chunk, calls: Sequence[Call], copies: int, inputs: Sequence[Tensor]):
        super().__init__(calls, copies, inputs)
        self.chunk = chunk
        self.elements = 0
        """How many values were computed."""
        self.convolved = marked(())  # by the call that gave them
        self.learned: list[tuple[Call, Norm]] = []

    def _compute(self, call: Call, written: Tensor | None, func: Any, args: Any, kwargs: Any) -> Any:
        if func is F.batch_norm and args and args[0] in self.convolved:
            norm = self._normed(call, args, kwargs)
            if norm is not None:
                return norm
        changed = [each for each in tensors((args, kwargs)) if each in self.changed]
        apart = all(isinstance(each, Region) and not each.dissolved for each in changed)
        if apart and (written is None or isinstance(written, Region)):
            result = local(self.chunk, call, func, args, kwargs)
            if result is not None:
                return self._took(call, written, func, result)
        return self._on_full_maps(call, written, func, args, kwargs)

    def _normed(self, call: Call, args: Any, kwargs: Any) -> Tensor | None:
        """What a batch norm gives whose convolution has its factors in the weights already; from the next time on."""
        before, norms = self.convolved[args[0]], self.chunk.around.norms
        if before in norms:
            given: Tensor = args[0]
            result: Tensor = given
            if isinstance(given, Region):
                part = self.chunk.region(call, given.boxes, given.inside)
                result = given.full() if given.dissolved else part
            self.changed[result] = True
            return result
        others = [*args[1:], *kwargs.values()]
        if before.readers == [call] and not any(each in self.changed for each in tensors(others)):
            norm = Norm.of(call, args, kwargs)
            if norm is not None:
                self.learned.append((before, norm))
        return None

    def _took(self, call: Call, written: Tensor | None, func: Any, result: Tensor) -> Tensor:
        if not same_path(result, call.result, self.copies):
            raise Departed
        values = result.inside if isinstance(result, Region) else result
        if result not in self.changed:
            self.elements += values.numel()
        if isinstance(written, Region) and isinstance(result, Region):
            written.become(result.recorded, result.boxes, result.part, result.inside)
            result = written
        self.computed += 1
        self.largest = max(self.largest, values.numel() * values.element_size())
        self.changed[result] = True
        if func in CONVOLUTIONS:
            self.convolved[result] = call
        return result

    def _on_full_maps(self, call: Call, written: Tensor | None, func: Any, args: Any, kwargs: Any) -> Any:
        regions = [each for each in tensors((args, kwargs)) if isinstance(each, Region)]
        instead = written.dissolve() if isinstance(written, Region) else written
        for region in regions:
            self.changed[region.full()] = True
        args, kwargs = mapped(whole, args), mapped(whole, kwargs)
        # filters that are made of the input are those of these variants alone
        kept = func in CONVOLUTIONS and len(args) > 2 and not any(each in self.changed for each in tensors(args[1:3]))
        if kept:
            args = (args[0], *self.chunk.around.weights(call, args[1], args[2]), *args[3:])
        returned = super()._compute(call, instead, func, args, kwargs)
        if kept:
            self.convolved[returned] = call
        for found in tensors(returned if instead is None else instead):
            self.elements += found.numel()
            for region in regions:
                if found.untyped_storage().data_ptr() == region.full().untyped_storage().data_ptr():
                    region.dissolve()  # a view of it may be written
        return written if returned is instead and written is not None else returned


def whole(value: Tensor) -> Tensor:
    return value.full() if isinstance(value, Region) else value
