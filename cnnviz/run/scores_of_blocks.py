"""The score of each block's tokens: what the model makes of them when it leaves out the blocks behind.

A block is the outermost module in whose call one attention runs, and no other. It is taken for one only if all ways
from its attention to the score lead through what it gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from cnnviz.engine.graph_ancestry import leads_back
from cnnviz.engine.nested import mapped, tensors
from cnnviz.engine.trace import TraceRequest
from cnnviz.run.passes import Passes
from cnnviz.run.plan import Plan


def blocks_of(passes: Passes, numbers: Sequence[int]) -> list[str]:
    """The blocks of these attentions of a pass, by the names of their modules.

    Raises ValueError where an attention has none, or where the score is read from more than what the last one gives.
    """
    begun: dict[str, int] = {}
    calls: dict[str, list[tuple[range, Any]]] = {}
    """Of each call of a module between which nodes of the graph it ran, and which one gave its output."""

    def begin(name: str, module: nn.Module, args: Any) -> None:
        begun[name] = torch._C._autograd._get_sequence_nr()

    def end(name: str, module: nn.Module, args: Any, output: Any) -> None:
        ran = range(begun.get(name, 0), torch._C._autograd._get_sequence_nr())
        calls.setdefault(name, []).append((ran, next((tensor.grad_fn for tensor in tensors(output)), None)))

    model = passes.model
    names = [name for name, _ in model.named_modules() if name]
    seen = _passed(
        passes,
        pre_hooks=tuple((name, partial(begin, name)) for name in names),
        hooks=tuple((name, partial(end, name)) for name in names),
    )
    trace: Any = seen.trace
    score, nodes = seen.score().grad_fn, [trace.attention.found[number].shares.grad_fn for number in numbers]
    once = {name: ran[0] for name, ran in calls.items() if len(ran) == 1}
    inside = {name: [node for node in nodes if node._sequence_nr() in ran] for name, (ran, _) in once.items()}
    blocks = [
        min((name for name in once if inside[name] == [node]), key=lambda name: name.count("."), default="")
        for node in nodes
    ]
    if all(blocks) and len({type(model.get_submodule(name)) for name in blocks}) == 1:
        ways = [
            leads_back(score, {once[name][1]: False, node: True})
            for place, node in enumerate(nodes)
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

    return _passed(passes, hooks=((blocks[place], hold), (blocks[-1], give)))


def _passed(passes: Passes, **hooks: Any) -> Passes:
    """The same question, put to another pass with hooks."""
    question = passes.settled()
    layers = frozenset(map(passes.layer_name, question.layers))
    request = TraceRequest(attention=True, before=question.options.before, score_layers=layers, **hooks)
    return passes.shared(question, Plan(attention=True, score_layers=question.layers), passes.traces.of(request))
