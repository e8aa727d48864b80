"""A question that is settled once and asked for a stream of inputs of one shape."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cnnviz.engine import captured as graphs
from cnnviz.engine.black_box import BlackBox
from cnnviz.engine.deferred import settled
from cnnviz.engine.device_policy import kind_of
from cnnviz.engine.loans import borrows
from cnnviz.engine.model_inputs import ModelInputs
from cnnviz.engine.model_version import ModelVersion
from cnnviz.engine.speed.autocast import Precision
from cnnviz.engine.speed.precision_turns import hold_precision
from cnnviz.engine.validation import as_network, check_model, unwrap
from cnnviz.explanations.captured_question import CapturedQuestion, Uncapturable, captured
from cnnviz.explanations.inputs import Arguments, Explained
from cnnviz.explanations.options import ExplainOptions
from cnnviz.explanations.request import Asked, Request, requested
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.protocols import Attribution
from cnnviz.run.objectives import Objective
from cnnviz.run.options import Findings, RunOptions
from cnnviz.run.resolve_target import several, top
from cnnviz.run.targets import Target

if TYPE_CHECKING:
    from cnnviz.explanations.explain import Inputs


MOST_KINDS = 8  # of targets, for which something is kept


@dataclass(eq=False)
class _Settled:
    """What is known of the questions with targets of one kind."""

    network: nn.Module
    options: RunOptions
    findings: Findings
    targets: Sequence[Any]
    """Held, so that no other target gets the identity of one of these."""
    graph: CapturedQuestion | None = None
    is_tried: bool = False
    """True if it was tried to capture a graph."""


class Prepared:
    """Explains inputs of one shape as :func:`cnnviz.explain` does; made by :func:`cnnviz.prepare`.

    It serves one thread, and on CUDA one stream, at a time: prepare one for each.
    """

    def __init__(self, model: Any, request: Request, like: Any, target: Target | top | several):
        self.request = request
        self._target = target
        given = model.module if isinstance(model, LoadedModel) else model
        self._wraps = given if isinstance(given, nn.Module) and not isinstance(request.network, BlackBox) else None
        call = request.asked(like, target).call
        self._shapes, self._joint = _shapes(call), call.call.joint
        self._device = self._shapes[0][2]
        self._turn = threading.Lock()
        self._version = ModelVersion(request.network)
        self._settled: dict[Hashable, _Settled] = {}

    def __call__(self, inputs: Inputs, target: Target | top | several = None) -> Any:
        """What :func:`cnnviz.explain` returns for these inputs.

        Args:
            inputs: of the shape, dtype and device that were prepared for; or pictures.
            target: as for ``explain``; None: the target that was given to ``prepare``.

        Raises:
            ValueError: for inputs of another shape, dtype or device.
            RuntimeError: while it is being asked, by another thread or from outside of a hook.
            TypeError, LookupError: as ``explain`` does.
        """
        if not self._turn.acquire(blocking=False):
            raise RuntimeError(
                "this prepared question is being asked, by another thread or outside of a hook; prepare one for each"
            )
        try:
            return self._answer(inputs, self._target if target is None else target)
        finally:
            self._turn.release()

    def __repr__(self) -> str:
        methods = ", ".join(self.request.methods)
        return f"Prepared({methods} of {type(self.request.network).__name__}; {_written(self._shapes)})"

    @borrows
    def _answer(self, inputs: Inputs, target: Target | top | several) -> Any:
        if self._wraps is not None and unwrap(self._wraps) is not self.request.network:
            self.request = replace(self.request, network=as_network(self._wraps))
        # of a black box nobody sees whether it is as it was
        if isinstance(self.request.network, BlackBox) or not self._version.is_current(self.request.network):
            check_model(self.request.network)
            self._settled.clear()
            self._version = ModelVersion(self.request.network)
        hold_precision(self._device.type, self.request.options.precision)
        graph = graphs.graph_on(self._device)
        if graph is not None:
            asked = self._checked(inputs, target)
            answers = self._replayed(graph, asked)
            if answers is not None:
                return self.request.result(answers, asked, target)
        result, known, findings = settled(lambda: self._explained(inputs, target), defers=kind_of(self._device).defers)
        known.findings = findings  # which hold, now that all of the answer does
        return result

    def _explained(self, inputs: Inputs, target: Target | top | several) -> tuple[Any, _Settled, Findings]:
        asked = self._checked(inputs, target)
        known = self._known(asked)
        findings = copy.deepcopy(known.findings)
        answers = self.request.answers(asked, known.network, replace(known.options, findings=findings))
        kept = findings if findings.are_proven and findings.of_probabilities.are_proven else Findings()
        return self.request.result(answers, asked, target), known, kept

    def _replayed(self, graph: graphs.Graph, asked: Asked) -> Any:
        """The answers of a graph; None where there is none, or where something is not as when it was captured."""
        known = self._known(asked)
        if not known.is_tried:
            known.is_tried = True
            try:
                known.graph = captured(graph, self.request, asked, known.network, known.options, self._version)
            except Uncapturable as error:
                warnings.warn(f"{self!r} is computed without a graph: {error}", stacklevel=4)
        return None if known.graph is None else known.graph(asked)

    def _checked(self, inputs: Inputs, target: Target | top | several) -> Asked:
        asked = self.request.asked(inputs, target)
        shapes = _shapes(asked.call)
        if shapes != self._shapes or asked.call.call.joint != self._joint:
            raise ValueError(
                f"the input is {_written(shapes)}, and what was prepared takes {_written(self._shapes)}; "
                "prepare another question for it, or call explain"
            )
        return asked

    def _known(self, asked: Asked) -> _Settled:
        key = asked.count, *map(_kind, asked.targets)
        known = self._settled.get(key)
        if known is None:
            network, options = self.request.prepared_for(asked)
            options = replace(options, policy=options.policy_on(self._device))
            known = self._settled[key] = _Settled(network, options, Findings(), asked.targets)
            if len(self._settled) > MOST_KINDS:
                del self._settled[next(iter(self._settled))]
        elif known.options.folded is not None:
            known.options.folded.renew()
        return known


def _kind(target: Any) -> Hashable:
    if isinstance(target, Tensor):
        return "classes"
    try:
        hash(target)
    except TypeError:
        return id(target)
    return target if isinstance(target, Objective) else id(target)


_Shapes = list[tuple[torch.Size, torch.dtype, torch.device]]


def _shapes(call: ModelInputs) -> _Shapes:
    return [(tensor.shape, tensor.dtype, tensor.device) for tensor in call.tensors]


def _written(shapes: _Shapes) -> str:
    return " and ".join(f"{tuple(shape)} {dtype} on {device}" for shape, dtype, device in shapes)


def prepare(
    model: nn.Module | LoadedModel | Callable[..., Any],
    attribution: str | Attribution | Sequence[str | Attribution] = "grad_cam",
    *,
    like: Inputs,
    target: Target | top | several = None,
    of: Explained | Any = 0,
    arguments: Arguments = (),
    preprocessing: Preprocessing | Any = None,
    categories: Sequence[str] | None = None,
    seed: int = 0,
    memory: int | None = None,
    before_softmax: bool = False,
    before_sigmoid: bool = False,
    precision: Precision | None = None,
    fold: bool = False,
    compile: bool | str = False,
    **settings: Any,
) -> Prepared:
    """A question that is settled once, for a stream of inputs of one shape: ``prepare(...)(inputs)``.

    The first inputs settle what does not depend on their values: the methods, the layers, the chunks, and whether
    inputs of a batch are independent. Those that follow are explained without that. On CUDA the whole question is
    captured in a graph and replayed: Python does not run, and what the model or a method does by Python happens once.
    Where the model reads values, draws random numbers or has hooks, one warning says why there is no graph.

    Exchanged, written or moved weights, modes, hooks and attributes of the model are noticed: the question is settled
    anew. A list, a dict or another object of the model that is changed in place is not.

    Args:
        model, attribution, settings: as for :func:`cnnviz.explain`.
        like: inputs of the shape, dtype and device that will be explained, (N, C, *spatial).
        target: what is explained where a call names no target.
        of, arguments, preprocessing, categories: as for ``explain``.
        seed, memory, before_softmax, before_sigmoid, precision, fold, compile: as for ``explain``.

    Returns:
        A :class:`~cnnviz.explanations.Prepared`, which is called with inputs and returns what ``explain`` returns.

    Raises:
        ValueError, TypeError, LookupError: as ``explain`` does.
    """
    options = ExplainOptions(seed, memory, before_softmax, before_sigmoid, precision, fold, compile)
    request = requested(
        model,
        attribution,
        options,
        settings,
        inputs=like,
        of=of,
        arguments=arguments,
        preprocessing=preprocessing,
        categories=categories,
    )
    return Prepared(model, request, like, target)
