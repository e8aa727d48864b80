"""Operations that a rule lists and yet can't act on, found in the graph of a pass.

A rule acts on operations that Python calls in the thread of the pass. Parts in TorchScript, in an
``autograd.Function``, in an extension or in a thread of the model's own leave nodes in the graph and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from cnnviz.engine.backward_rules import Rule
from cnnviz.engine.graph_ancestry import leads_back
from cnnviz.engine.layers import InputPlace, Site
from cnnviz.engine.operations import Operation, name_of
from cnnviz.engine.seen_calls import is_seen
from cnnviz.engine.weights import CONVOLUTIONS, MATRIX_PRODUCTS

_NODES: Mapping[str, tuple[Operation, ...]] = {
    **{"PreluKernel": (F.prelu,), "RreluWithNoise": (F.rrelu,), "Threshold": (F.threshold,)},
    "Convolution": CONVOLUTIONS,
    **dict.fromkeys(("Addmm", "Addmv", "Addbmm", "Baddbmm", "Mm", "Mv", "Bmm", "Dot", "Linear"), MATRIX_PRODUCTS),
    "Trilinear": (F.bilinear,),
    **dict.fromkeys(("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"), (F.batch_norm, F.instance_norm)),
    **{"NativeLayerNorm": (F.layer_norm,), "NativeGroupNorm": (F.group_norm,)},
}
"""By the name of a node, the operations that may make it, where they have other names; which one is not known."""
_LIMITS = {
    "Hardtanh": ("_saved_min_val", "_saved_max_val"),
    "Clamp": ("_saved_min", "_saved_max"),
    "ClampMin": ("_saved_min", ""),
}
_LINEAR = frozenset(
    f"{name}Backward"
    for name in (
        *("View", "UnsafeView", "ReshapeAlias", "Alias", "AsStrided", "Expand", "Permute", "Transpose", "T", "Squeeze"),
        *("Unsqueeze", "Select", "Slice", "Split", "SplitWithSizes", "Unbind", "Unfold", "Diagonal", "Clone", "Copy"),
        *("ToCopy", "Contiguous", "Cat", "Stack", "Repeat", "Flip", "Roll", "ConstantPadNd", "PixelShuffle", "Sum"),
        *("ReflectionPad1D", "ReflectionPad2D", "ReflectionPad3D", "ReplicationPad1D", "ReplicationPad2D", "Mean"),
        *("ReplicationPad3D", "Add", "Sub", "Rsub", "Neg", "Cumsum", "AvgPool2D", "AvgPool3D", "AdaptiveAvgPool2D"),
        *("AdaptiveAvgPool3D", "UpsampleNearest2D", "UpsampleBilinear2D"),
    )
)
_LINEAR_IN_EACH = frozenset({"ConvolutionBackward", "AddmmBackward", "MmBackward", "BmmBackward", "LinearBackward"})
"""Linear in each factor, and so in all if one of them comes from the input."""


def check_reached(rule: Rule, score: Tensor, wrt: Sequence[Any], model_name: str) -> None:
    """Raises LookupError where an operation between the score and ``wrt``, tensors or edges, can't follow the rule."""
    if not score.requires_grad:
        return
    carrying = [place for place in wrt if not isinstance(place, Tensor) or place.requires_grad]
    edges = [get_gradient_edge(place) if isinstance(place, Tensor) else place for place in carrying]
    begins = {edge.node for edge in edges}
    if rule.compares:
        missed = _unseen_operation(score, begins)
    else:
        missed = missed_operation(score, begins, rule.backwards.keys() - set(rule.lone))
    if missed is not None:
        raise LookupError(
            f"rule {rule.name!r} can't act on {missed} in {model_name}: it is not seen in TorchScript, an "
            "autograd.Function, an extension or another thread; call torch's functions in forward, or use a method "
            "without rules"
        )


def changes_nothing(rule: Rule, model_name: str) -> LookupError:
    """The error for a rule none of whose operations are between the score and what is explained."""
    operations = rule.backwards if rule.counted is None else rule.counted
    names = ", ".join(sorted(map(name_of, operations)))
    way_out = f"; {rule.otherwise}" if rule.otherwise else ""
    return LookupError(
        f"rule {rule.name!r} changes nothing in {model_name}: none of {names} is between "
        f"the score and what is explained{way_out}"
    )


def no_derivative(operation: str, model_name: str) -> LookupError:
    """The error for an operation that gradients can't go back through."""
    return LookupError(
        f"PyTorch has no derivative of {operation}, which {model_name} calls; call torch's functions "
        "that have one in forward, or use a method that asks for scores only"
    )


def cut_off(place: Site | InputPlace, model: nn.Module) -> ValueError:
    """The error for a place that the score has no gradient at."""
    where = f"layer {place.name!r}" if isinstance(place, Site) else place.value
    return ValueError(
        f"the score does not depend on {where} by operations that carry gradients; a detach() or "
        f"no_grad() in {type(model).__name__}.forward cuts them, or the layer decides nothing"
    )


def missed_operation(score: Tensor, begins: Collection[Any], operations: Set[Operation]) -> str | None:
    """The name of a node between the score and where the graph begins that should have followed a rule, if any.

    Args:
        score: with its graph.
        begins: the nodes of the graph at which gradients are taken.
        operations: those that the rule lists.
    """
    by_name = {name_of(operation).replace("_", ""): operation for operation in operations}
    for node in _between(score.grad_fn, begins):
        name: str = node.name().rpartition("::")[2].rstrip("0123456789").removesuffix("Backward")
        if _is_foreign(node):
            return name
        alone = _rectifier(node, *_LIMITS[name]) if name in _LIMITS else by_name.get(name.lower())
        if alone is not None and alone in operations:
            return name_of(alone)
        if name in _NODES and operations >= set(_NODES[name]):
            return name.lower()
    return None


def _rectifier(node: Any, lower: str, upper: str) -> Operation | None:
    """ReLU or ReLU6, for a node that limits values to zero and above; None for other limits."""
    low, high = getattr(node, lower, None), getattr(node, upper, None) if upper else None
    if not isinstance(low, int | float) or low != 0:
        return None
    return F.relu if high is None else F.relu6


def _unseen_operation(score: Tensor, begins: Collection[Any]) -> str | None:
    """The name of a node on the way that is not linear, and that belongs to no call which the pass saw, if any."""
    between = _between(score.grad_fn, begins)
    leading = {*between, *begins}
    for node in between:
        name: str = node.name().rpartition("::")[2].rstrip("0123456789")
        ours = isinstance(node, torch.autograd.function.BackwardCFunction) and not _is_foreign(node)
        if ours or name in _LINEAR or is_seen(node):
            continue
        if name in _LINEAR_IN_EACH and sum(parent in leading for parent, _ in node.next_functions) == 1:
            continue
        return name.removesuffix("Backward")
    return None


def _is_foreign(node: Any) -> bool:
    """True for a node of TorchScript, an extension, or an ``autograd.Function`` that is neither torch's nor ours."""
    if isinstance(node, torch.autograd.function.BackwardCFunction):
        return not str(type(node)._forward_cls.__module__).startswith(("torch.", "cnnviz."))  # type: ignore[attr-defined]
    name = node.name()
    return name.startswith("torch::jit::") or "CppNode" in name


def _between(last: Any, begins: Collection[Any]) -> Sequence[Any]:
    """The nodes from which the graph leads back to one of ``begins``, these left out."""
    leads: dict[Any, bool] = dict.fromkeys(begins, True)
    leads_back(last, leads)
    return [node for node, leading in leads.items() if leading and node not in begins]
