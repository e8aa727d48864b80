"""The score of each block's tokens: what the model makes of them when it leaves out the blocks behind.

A block is the outermost module in whose call one attention runs, and no other. It is taken for one only if all ways
from its attention to the score lead through what it gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine.attention import AttentionWatch
from cnnviz.engine.forward import forward
from cnnviz.engine.graph_ancestry import leads_back
from cnnviz.engine.nested import mapped, tensors
from cnnviz.engine.operation_observer import OperationObserver
from cnnviz.engine.switch import Switchboard
from cnnviz.engine.trace import TraceRequest
from cnnviz.run.passes import Passes
from cnnviz.run.plan import Plan


def blocks_of(passes: Passes, numbers: Sequence[int]) -> list[str]:
    """The blocks of these attentions of a pass, by the names of their modules.

    Raises ValueError where an attention has none, or where the score is read from more than what the last one gives.
    """
    model, question, items = passes.model, passes.settled(), len(passes.inputs[0])
    with torch.inference_mode(False):
        source = passes.inputs[0].detach().clone().requires_grad_()
    watch = AttentionWatch(source)
    begun: dict[str, int] = {}
    calls: dict[str, list[tuple[set[int], Any]]] = {}  # which attentions ran in each, and where its graph ends

    def begin(name: str, module: nn.Module, args: Any) -> None:
        begun[name] = len(watch.found)

    def end(name: str, module: nn.Module, args: Any, output: Any) -> None:
        ran = set(range(begun.get(name, 0), len(watch.found))) & set(numbers)
        calls.setdefault(name, []).append((ran, next((tensor.grad_fn for tensor in tensors(output)), None)))

    names = [name for name, _ in model.named_modules() if name]
    output = forward(
        model,
        passes.inputs.each(Tensor.detach).with_first(source),
        pre_hooks=[(name, partial(begin, name)) for name in names],
        hooks=[(name, partial(end, name)) for name in names],
        modes=[OperationObserver((), Switchboard(), lambda: [source], attention=watch)],
        grad=True,
        before=question.options.before,
        survey=True,
    )
    with torch.inference_mode(False), torch.enable_grad():
        score = question.read(output, items, lambda: source, {})
    once = {name: ran[0] for name, ran in calls.items() if len(ran) == 1}
    inside = [[name for name, (ran, _) in once.items() if ran == {number}] for number in numbers]
    blocks = [min(names, key=lambda name: name.count("."), default="") for names in inside]
    if all(blocks) and len({type(model.get_submodule(name)) for name in blocks}) == 1:
        ways = [
            leads_back(score.grad_fn, {once[name][1]: False, watch.found[number].shares.grad_fn: True})
            for place, number in enumerate(numbers)
            for name in blocks[place:]
        ]
        if not any(ways):
            return blocks
    raise ValueError(
        f"the score of each block's tokens is asked for, and {type(model).__name__} is not made of blocks of one "
        "kind, each a module with one attention, of which the score reads the last one only; use a method that "
        "needs the model's own score only, such as transformer_attribution"
    )


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
