"""The operations of one forward pass as they are called: measured, and run so that rules can act on them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from cnnviz.engine.attention import AttentionWatch
from cnnviz.engine.axes import AxisFollower
from cnnviz.engine.backward_rules import Rule
from cnnviz.engine.batch_axis.proof import BatchAxis
from cnnviz.engine.bias_terms import unmerged
from cnnviz.engine.call_site import is_linear
from cnnviz.engine.disguises import Disguises
from cnnviz.engine.graph_ancestry import leads_back, leads_to
from cnnviz.engine.implicit_biases import Biases, refuse_transformed
from cnnviz.engine.merged_norms import MERGED, MergedNorms
from cnnviz.engine.nested import tensors
from cnnviz.engine.operand_record import OperandRecord
from cnnviz.engine.operations import HARDTANHS, READ_SIZES, bounds, canonical, in_place
from cnnviz.engine.speed.batch_norm import scaled
from cnnviz.engine.speed.memory_format import ORDINARY, LayoutReads
from cnnviz.engine.switch import Bound, Rectifier, Switch, Switchboard
from cnnviz.engine.thread_state import WatchingMode
from cnnviz.engine.unseen_operations import UnseenOperations
from cnnviz.engine.written_out import Composite, composite


class OperationObserver(WatchingMode):
    """Sees every operation that one thread calls while it is entered.

    Args:
        rules: whose operations are run so that a rule can act on them in the backward pass.
        switchboard: says in the backward pass which rule that is.
        begins: where the graph begins, as far as it is known when an operation is called.
        biases: collects the implicit biases of operations.
        layout: the memory format of the pass.
        axis: follows the batch axis.
        record: numbers the calls of the rules' operations; one that keeps operands takes them instead of a rule.
        norms_scaled: compute batch norms as one multiplication, unless a rule or biases are about them.
        axes: knows where the axes of the input lie, for what rules tell; those of the biases, where there are some.
        attention: looks for attentions, for which operations that hide them are written out.
    """

    def __init__(
        self,
        rules: Collection[Rule],
        switchboard: Switchboard,
        begins: Callable[[], Collection[Tensor | GradientEdge]],
        biases: Biases | None = None,
        layout: torch.memory_format = ORDINARY,
        axis: BatchAxis | None = None,
        record: OperandRecord | None = None,
        norms_scaled: bool = False,
        axes: AxisFollower | None = None,
        attention: AttentionWatch | None = None,
    ):
        super().__init__()
        self.switchboard, self.begins, self.biases = switchboard, begins, biases
        self.axis, self.attention = axis, attention
        self.unseen = UnseenOperations()
        self.record = OperandRecord() if record is None else record
        self.layout_reads = LayoutReads(layout)
        self.watch: Callable[[Any, Any], None] | None = None
        """Called before every operation."""
        self.operations = 0
        """How many operations gave a tensor."""
        self.bytes = 0
        """Of the outputs of all operations."""
        self.largest = 0
        """Bytes of the largest output."""
        self.switched = {operation for rule in rules for operation in rule.backwards}
        self.near = {operation for rule in rules for operation in rule.carried} - self.switched
        """Operations that matter before the first layer only."""
        full = {operation for rule in rules for operation in rule.backwards if operation not in rule.lone}
        self.lone = self.switched - full
        self.behind: dict[Any, bool] = {}
        """By node of the graph, as far as it was visited: does it lead back to a layer with weights?"""
        reading = [rule for rule in rules if rule.reads_input or rule.compares]
        self.reads_input = {operation for rule in reading for operation in rule.backwards}
        refuses = any(rule.otherwise is not None and F.relu in rule.backwards for rule in rules)
        self.disguises = Disguises(refuses) if F.relu in self.switched else None
        self.compares = any(rule.compares for rule in rules)
        self.norms_scaled = norms_scaled and biases is None and F.batch_norm not in self.switched
        self.merges = MergedNorms(switchboard) if any(rule.folds for rule in rules) else None
        self.axes = axes
        self.unlabelled: Bound | None = None
        """The rule's operation that was called last, whose label is to be filled in."""
        self.descent: dict[Any, bool] = {}
        """By node of the graph, as far as it was visited: does it lead back to where the graph begins?"""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.unseen.inside += 1
        try:
            return self._observe(func, args, kwargs or {})
        finally:
            self.unseen.inside -= 1

    def _observe(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if self.axis is None and func in READ_SIZES:
            return func(*args, **kwargs)
        operands = list(tensors((args, kwargs))) if self.compares else []
        for operand in operands:
            if type(operand) is not Tensor and isinstance(operand, nn.Parameter):
                self.record.parameters.append(id(operand))
        whole = composite(func)
        if whole is not None and self._looks_inside(func, whole):
            inside, self.unseen.inside = self.unseen.inside, 0
            try:
                with self:
                    return whole.run(*args, **kwargs)
            finally:
                self.unseen.inside = inside
        if self.watch is not None:
            self.watch(func, args)
        if self.axis is not None:
            self.axis.before(func, args, kwargs)
        if self.compares:
            output = self.record.seen.run(func, operands, args, kwargs, partial(self._run, func, args, kwargs))
        elif self.biases is None:
            output = self._run(func, args, kwargs)
        else:
            output = self.biases.call(func, args, kwargs, self._run, self._descends)
        if self.axes is not None:
            self._label(self.axes, func, args, kwargs, output)
        if self.axis is not None:
            self.axis.after(func, args, kwargs, output)
        if self.attention is not None:
            self.attention.see(func, args, kwargs, output)
        self.layout_reads.see(func, args, kwargs, output)
        if self.disguises is not None:
            self.disguises.see(func, args, output)
        if isinstance(output, Tensor):
            size = output.numel() * output.element_size()
            self.bytes, self.largest = self.bytes + size, max(self.largest, size)
            self.operations += 1
        return output

    def begin(self, output: Tensor, leaf: Tensor) -> Tensor:
        """A copy of ``leaf``, at which the graph begins, in the place of what a layer gave."""
        copy = leaf.clone()
        if self.merges is not None:
            self.merges.begin(output, leaf, copy)
        return copy

    def _looks_inside(self, func: Any, whole: Composite) -> bool:
        """True if a rule, the biases, or whoever looks for attentions asks for what an operation consists of."""
        if func in self.switched:  # a rule is about all of it
            return False
        asked = (self.biases is not None and whole.biased) or not self.switched.isdisjoint(whole.of)
        return (asked and torch.is_grad_enabled()) or (self.attention is not None and F.softmax in whole.of)

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        output = self._switched(func, args, kwargs)
        if self.merges is None or func is not F.batch_norm or not torch.is_grad_enabled():
            return output
        output, merged = self.merges.merged(args, kwargs, output)
        self.unlabelled = merged or self.unlabelled
        return output

    def _switched(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is F.batch_norm and self.norms_scaled:
            output = scaled(*args, **kwargs)
            return func(*args, **kwargs) if output is None else output
        operation = canonical(func, args, kwargs) if self.switched else func
        if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():  # no graph is made
            output = func(*args, **kwargs)
            if self.merges is not None and operation in MERGED:
                self.merges.see_before(output, args[1] if len(args) > 1 else kwargs["weight"])
            return output
        hidden = None if self.disguises is None else self.disguises.operand(func, args, kwargs)
        if hidden is not None:
            operation = F.relu
        elif operation not in self.switched and operation not in self.near:
            return func(*args, **kwargs)
        operands = list(tensors((args, kwargs)))
        for operand in operands:
            refuse_transformed(func, operand, lambda base: base.requires_grad)
        inputs = [operand for operand in operands if operand.requires_grad and not is_functorch_wrapped_tensor(operand)]
        if len(inputs) > 1:
            inputs = [operand for operand in inputs if self._descends(operand)]
        writes = in_place(func, kwargs)
        if not inputs or (writes and inputs[0] is not operands[0]) or self._is_left(operation, inputs):
            return func(*args, **kwargs)
        place = self.record.number(operation, inputs)
        if self.record.keeps:
            return func(*args, **kwargs)
        board, copied = self.switchboard, operation in self.reads_input
        if operation is F.relu and not copied and hidden is None:
            return Rectifier.apply(board, writes, (), inputs[0])
        if operation is F.relu6 and not copied and (func is F.relu6 or func in HARDTANHS):
            return Rectifier.apply(board, writes, bounds(func, args, kwargs), inputs[0])
        bound = Bound(func, args, kwargs, inputs, writes, None if hidden is None else F.relu)
        self.unlabelled = bound
        output = Switch.apply(board, place, bound, copied, *inputs)
        if self.merges is not None and operation in MERGED and len(inputs) == 1:
            self.merges.see(output, bound, place, inputs[0])
        return output if bound.kind is None else bound.kind(output)

    def _is_left(self, operation: Any, inputs: Collection[Tensor]) -> bool:
        """True for a sum of branches that no rule is about, and behind layers for what goes on before them."""
        if operation in self.lone:
            return len(inputs) > 1
        return operation in self.near and any(leads_to(_node(tensor), is_linear, self.behind) for tensor in inputs)

    def _label(self, axes: AxisFollower, func: Any, args: Any, kwargs: Any, output: Any) -> None:
        """Note where the axes lie in an output, and tell the rule's call that gave it."""
        if self.biases is None:
            axes.see(func, args, kwargs, output)
        bound, self.unlabelled = self.unlabelled, None
        found = next(tensors(output), None)
        if bound is not None and found is not None:
            bound.label = unmerged(axes.of(found), axes.mixed)

    def _descends(self, tensor: Tensor) -> bool:
        """True if a tensor comes from where the graph begins. Weights carry gradients too, and do not."""
        self.descent |= {_node(begin): True for begin in self.begins()}
        return leads_back(_node(tensor), self.descent)


def _node(place: Tensor | GradientEdge) -> Any:
    return get_gradient_edge(place).node if isinstance(place, Tensor) else place.node
