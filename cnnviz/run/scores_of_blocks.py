"""The score of each block's tokens: what the model makes of them when it leaves out the blocks behind.

A block is the outermost module in whose call one attention runs, and no other. It is taken for one only if all ways
from its attention to the score lead through what it gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine.attention import AttentionWatch
from cnnviz.engine.forward import ForwardHook, forward
from cnnviz.engine.graph_ancestry import leads_back
from cnnviz.engine.nested import mapped, tensors
from cnnviz.engine.operation_observer import OperationObserver
from cnnviz.engine.switch import Switchboard
from cnnviz.engine.trace import TraceRequest
from cnnviz.run.passes import Passes
from cnnviz.run.plan import Plan


class _Calls:
    """Which attentions run in the call of each module, and where the graph of what it gives ends."""

    def __init__(self, watch: AttentionWatch):
        self.watch = watch
        self.begun: dict[str, list[int]] = {}
        self.encloses: dict[str, list[tuple[set[int], Any]]] = {}

    def hooks(self, name: str) -> tuple[Any, ForwardHook]:
        def begin(module: nn.Module, args: Any) -> None:
            self.begun.setdefault(name, []).append(len(self.watch.found))

        def end(module: nn.Module, args: Any, output: Any) -> None:
            begun = self.begun[name].pop() if self.begun.get(name) else 0
            node = next((tensor.grad_fn for tensor in tensors(output)), None)
            self.encloses.setdefault(name, []).append((set(range(begun, len(self.watch.found))), node))

        return begin, end

    def block(self, number: int, chain: set[int]) -> tuple[str, Any]:
        """The block of one of the attentions in the chain, and the end of its graph; no name where there is none."""
        alone = {name: calls[0] for name, calls in self.encloses.items() if len(calls) == 1}
        names = [name for name, (found, _) in alone.items() if found & chain == {number}]
        name = min(names, key=lambda name: name.count("."), default="")
        return name, alone[name][1] if name else None


def blocks_of(passes: Passes, numbers: Sequence[int]) -> list[str]:
    """The blocks of these attentions of a pass, by the names of their modules.

    Raises ValueError where an attention has none, or where the score is read from more than what the last one gives.
    """
    model, question, items = passes.model, passes.settled(), len(passes.inputs[0])
    with torch.inference_mode(False):
        source = passes.inputs[0].detach().clone().requires_grad_()
    watch = AttentionWatch(source)
    calls = _Calls(watch)
    hooks = {name: calls.hooks(name) for name, _ in model.named_modules() if name}
    output = forward(
        model,
        passes.inputs.each(Tensor.detach).with_first(source),
        pre_hooks=[(name, begin) for name, (begin, _) in hooks.items()],
        hooks=[(name, end) for name, (_, end) in hooks.items()],
        modes=[OperationObserver((), Switchboard(), lambda: [source], attention=watch)],
        grad=True,
        before=question.options.before,
        survey=True,
    )
    with torch.inference_mode(False), torch.enable_grad():
        score = question.read(output, items, lambda: source, {})
    blocks = [calls.block(number, set(numbers)) for number in numbers]
    kinds = {type(model.get_submodule(name)) for name, _ in blocks}
    ways = all(
        not leads_back(score.grad_fn, {node: False, watch.found[number].shares.grad_fn: True})
        for place, number in enumerate(numbers)
        for _, node in blocks[place:]
    )
    if not all(name for name, _ in blocks) or len(kinds) > 1 or not ways:
        raise ValueError(
            f"the score of each block's tokens is asked for, and {type(model).__name__} is not made of blocks of one "
            "kind, each a module with one attention, of which the score reads the last one only; use a method that "
            "needs the model's own score only, such as transformer_attribution"
        )
    return [name for name, _ in blocks]


def cut_behind(passes: Passes, blocks: Sequence[str], place: int) -> Passes:
    """The same question, where the model's last block gives what the one at this place gave."""
    held: list[Any] = []

    def hold(module: nn.Module, args: Any, output: Any) -> None:
        held[:] = [mapped(torch.clone, output)]  # the block behind it may write into it

    def give(module: nn.Module, args: Any, output: Any) -> Any:
        return held.pop()

    request = TraceRequest(
        attention=True, before=passes.question.options.before, hooks=((blocks[place], hold), (blocks[-1], give))
    )
    trace = passes.traces.of(request, by_items=False)
    return passes.shared(passes.settled(), Plan(attention=True), trace)
