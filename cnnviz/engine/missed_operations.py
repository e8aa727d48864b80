"""Operations that a rule lists and yet can't act on, found in the graph of a pass.

A rule acts on operations that Python calls in the thread of the pass. Parts in TorchScript, in an
``autograd.Function``, in an extension or in a thread of the model's own leave nodes in the graph and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from cnnviz.engine.backward_rules import Rule
from cnnviz.engine.operations import Operation, name_of

_NODES: Mapping[str, Operation] = {
    **{"ReluBackward": F.relu, "LeakyReluBackward": F.leaky_relu, "PreluKernelBackward": F.prelu},
    **{"RreluWithNoiseBackward": F.rrelu, "ThresholdBackward": F.threshold},
    **{"EluBackward": F.elu, "CeluBackward": F.celu, "GeluBackward": F.gelu, "SiluBackward": F.silu},
    **{"MishBackward": F.mish, "HardswishBackward": F.hardswish, "HardsigmoidBackward": F.hardsigmoid},
    **{"SoftplusBackward": F.softplus, "SigmoidBackward": torch.sigmoid, "TanhBackward": torch.tanh},
}
_LIMITS = {
    "HardtanhBackward": ("_saved_min_val", "_saved_max_val"),
    "ClampBackward": ("_saved_min", "_saved_max"),
    "ClampMinBackward": ("_saved_min", ""),
}


def check_reached(rule: Rule, score: Tensor, wrt: Sequence[Any], model_name: str) -> None:
    """Raises LookupError where an operation between the score and ``wrt``, tensors or edges, can't follow the rule."""
    if not score.requires_grad:
        return
    carrying = [place for place in wrt if not isinstance(place, Tensor) or place.requires_grad]
    edges = [get_gradient_edge(place) if isinstance(place, Tensor) else place for place in carrying]
    missed = missed_operation(score, {edge.node for edge in edges}, rule.backwards.keys())
    if missed is not None:
        raise LookupError(
            f"rule {rule.name!r} can't act on {missed} in {model_name}: it is not seen in TorchScript, an "
            "autograd.Function, an extension or another thread; call torch's functions in forward, or use a method "
            "without rules"
        )


def changes_nothing(rule: Rule, model_name: str) -> LookupError:
    """The error for a rule none of whose operations are between the score and what is explained."""
    names = ", ".join(sorted(name_of(operation) for operation in rule.backwards))
    way_out = f"; {rule.otherwise}" if rule.otherwise else ""
    return LookupError(
        f"rule {rule.name!r} changes nothing in {model_name}: none of {names} is between "
        f"the score and what is explained{way_out}"
    )


def missed_operation(score: Tensor, begins: Collection[Any], operations: Collection[Operation]) -> str | None:
    """The name of a node between the score and where the graph begins that should have followed a rule, if any.

    Args:
        score: with its graph.
        begins: the nodes of the graph at which gradients are taken.
        operations: those that the rule lists.
    """
    for node in _between(score.grad_fn, begins):
        name: str = node.name().rpartition("::")[2].rstrip("0123456789")
        if _is_foreign(node):
            return name.removesuffix("Backward")
        operation = _rectifier(node, *_LIMITS[name]) if name in _LIMITS else _NODES.get(name)
        if operation in operations:
            return name_of(operation)  # type: ignore[arg-type]  # it is one of them
    return None


def _rectifier(node: Any, lower: str, upper: str) -> Operation | None:
    """ReLU or ReLU6, for a node that limits values to zero and above; None for other limits."""
    low, high = getattr(node, lower, None), getattr(node, upper, None) if upper else None
    if not isinstance(low, int | float) or low != 0:
        return None
    return F.relu if high is None else F.relu6


def _is_foreign(node: Any) -> bool:
    """True for a node of TorchScript, an extension, or an ``autograd.Function`` that is neither torch's nor ours."""
    if isinstance(node, torch.autograd.function.BackwardCFunction):
        return not str(type(node)._forward_cls.__module__).startswith(("torch.", "cnnviz."))  # type: ignore[attr-defined]
    name = node.name()
    return name.startswith("torch::jit::") or "CppNode" in name


def _between(last: Any, begins: Collection[Any]) -> Iterable[Any]:
    """The nodes from which the graph leads back to one of ``begins``, these left out."""
    leads: dict[Any, bool] = dict.fromkeys(begins, True)
    waiting = [last]
    while waiting:
        node = waiting[-1]
        parents = [] if node in leads else [parent for parent, _ in node.next_functions if parent is not None]
        unknown = [parent for parent in parents if parent not in leads]
        waiting += unknown
        if not unknown:
            leads.setdefault(waiting.pop(), any(leads[parent] for parent in parents))
    return [node for node, leading in leads.items() if leading and node not in begins]
