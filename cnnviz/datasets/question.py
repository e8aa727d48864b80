"""What a batch run asks about each of its items, and the identity by which the same question is known again."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from cnnviz.datasets.shards.kept_maps import MapStorage
from cnnviz.datasets.shards.shard_file import NO_CLASS
from cnnviz.datasets.workers.fingerprint import (
    fingerprint,
    layers_of,
    origin_of_method,
    weights_of,
    without_address,
)
from cnnviz.engine.validation import as_network
from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.options import ExplainOptions
from cnnviz.explanations.prepare import Prepared, prepare
from cnnviz.formulas.expr import Expr
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.configured import name_of
from cnnviz.registry.protocols import Attribution, Metric
from cnnviz.registry.registry import attributions, metrics
from cnnviz.run.plan import Plan
from cnnviz.run.run import Run
from cnnviz.run.targets import Target, class_scores
from cnnviz.run.told import probability_of

PREDICTED = "predicted class"
LIBRARIES = ("cnnviz", "torch", "torchvision", "pillow", "numpy")
"""Whose versions may change what is read or computed."""
PYTHON = ".".join(platform.python_version_tuple()[:2])
"""Its version, as far as the same source has the same code."""


@dataclass(frozen=True)
class TrueClass:
    """As the target of a batch run: the true class of each item, as its label tells."""

    def __repr__(self) -> str:
        return "true_class"


true_class = TrueClass()


@dataclass(frozen=True, repr=False)
class PredictedClass(Expr):
    """The predicted class and its probability, (N, 2, 1, ...): of a question about another class, in the same pass."""

    def compute(self, run: Run) -> Tensor:
        count = len(run.inputs)
        try:
            class_scores(run.trace.output, count)
            classes = run.question.ranked(run.trace.output, count, 1)[:, 0]
            share = probability_of(run.toward(classes))
        except (TypeError, ValueError):  # the output has no scores of classes
            classes, share = torch.full((count,), NO_CLASS), None
        share = torch.full((count,), -1.0) if share is None else share
        told = torch.stack(
            [classes.to(run.inputs.device, torch.float64), share.to(run.inputs.device, torch.float64)], 1
        )
        return told.view(count, 2, *(1,) * (run.inputs.ndim - 2))

    def plan(self) -> Plan:
        return Plan()

    def text(self, write: Any) -> str:
        return PREDICTED

    def __repr__(self) -> str:  # by which its explanation is found
        return PREDICTED


@dataclass(frozen=True)
class Fixed:
    """What of the computing rounding depends on; a run keeps it until its end."""

    batch: int
    """How many items pass through the model together."""
    memory: int
    """Bytes that inputs evaluated together may take."""
    threads: int
    """With how many threads a worker computes."""
    device: str
    """The kind of device: "cpu" or "cuda"."""


@dataclass(frozen=True, eq=False)
class BatchQuestion:
    """A model, methods and metrics, and how items are asked about."""

    model: LoadedModel
    methods: Mapping[str, Attribution]
    metrics: Mapping[str, Metric]
    target: Target | TrueClass
    options: ExplainOptions
    storage: MapStorage
    fixed: Fixed
    limit: int
    """The most pixels of a picture that is read."""
    arithmetic: Mapping[str, Any]
    """The switches of torch, as :func:`~cnnviz.datasets.workers.arithmetic.arithmetic_of` tells them."""
    as_sent: Mapping[str, Any] | None = field(default=None, repr=False)
    """In another process: the identity when it was sent, from which what arrived must not differ."""
    prepared: dict[tuple[torch.Size, str], Prepared] = field(default_factory=dict, repr=False)
    """The question as it was settled, by the inputs' shape and the kind of target."""

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"prepared": {}, "as_sent": self.identity()}

    def explained(self, inputs: Tensor, classes: Tensor | None) -> dict[str, Explanation]:
        """The explanations of inputs (N, C, *spatial) by method, and that of the predicted class last.

        ``classes`` are those of the items, (N,), where their true classes are explained.
        """
        target: Any = classes if isinstance(self.target, TrueClass) else self.target
        names = self._names()
        key = inputs.shape, str(inputs.dtype)
        if key not in self.prepared:
            if len(self.prepared) > 3:
                del self.prepared[next(iter(self.prepared))]
            given = asdict(self.options) | {"memory": self.fixed.memory}
            unique = {called: self.methods.get(name, PredictedClass()) for name, called in names.items()}
            self.prepared[key] = prepare(self.model, [*unique.values()], like=inputs, target=target, **given)
        found = self.prepared[key](inputs, target)
        return {name: found[called] for name, called in names.items()}

    def _names(self) -> dict[str, str]:
        """The names of the methods, each with the one that its explanation gets; equal methods are computed once.

        That of the predicted class is among them, if another class is explained. Raises ValueError for two methods that
        are called alike.
        """
        names: dict[str, str] = {}
        known: dict[str, Attribution] = {}
        for name, method in self.methods.items():
            names[name] = called = getattr(method, "__name__", repr(method))
            if known.setdefault(called, method) != method:
                raise ValueError(f"two methods are called {called!r}; give one of them another name")
        return names if self.target is None else {**names, PREDICTED: PREDICTED}

    def identity(self) -> dict[str, Any]:
        """All that the answers depend on, except the items, for JSON."""
        module = as_network(self.model.module)
        preprocessing, names = self.model.preprocessing, self.model.categories
        return {
            "model": {
                "network": type(module).__name__,
                "name": self.model.name,
                "sha256": weights_of(module),
                "layers": layers_of(module),
            },
            "methods": {name: _told(method, attributions) for name, method in self.methods.items()},
            "metrics": {name: _told(metric, metrics) for name, metric in self.metrics.items()},
            "target": "the predicted class" if self.target is None else _target_told(self.target),
            "preprocessing": None if preprocessing is None else preprocessing.as_dict(),
            "categories": None if names is None else fingerprint(names)[:16],
            "options": asdict(replace(self.options, memory=None)),
            "storage": self.storage.described(),
            "fixed": asdict(self.fixed),
            "pixel_limit": self.limit,
            "arithmetic": dict(self.arithmetic),
            "versions": {name: _version(name) for name in LIBRARIES} | {"python": PYTHON},
        }


def differences(there: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> list[str]:
    """What two identities differ in, a text each: ``options.seed is 0 there and 1 now``."""
    found: list[str] = []
    for name in dict.fromkeys([*there, *now]):
        ours, its = now.get(name), there.get(name)
        label = f"{above}{name}"
        if isinstance(ours, Mapping) and isinstance(its, Mapping):
            found += differences(its, ours, f"{label}.")
        elif name not in now or name not in there:
            found.append(f"{label} is only {'there' if name in there else 'asked now'}")
        elif ours != its:
            found.append(f"{label} is {_short(its)} there and {_short(ours)} now")
    return found


def as_loaded(model: Any, preprocessing: Any, categories: Sequence[str] | None) -> LoadedModel:
    """A model that was given by itself, with what is known of it."""
    from cnnviz.images.preprocessing import Preprocessing
    from cnnviz.models.class_names import class_names

    names = None if categories is None else class_names(categories)
    told = None if preprocessing is None else Preprocessing.of(preprocessing)
    if isinstance(model, LoadedModel):
        return replace(model, preprocessing=told or model.preprocessing, categories=names or model.categories)
    network = as_network(model)
    count = None if names is None else len(names)
    return LoadedModel(type(network).__name__, network, told, names, count)  # type: ignore[arg-type]  # of tensors none


def _told(method: Any, registry: Any) -> dict[str, Any]:
    origin = origin_of_method(method, registry)
    recipe = repr(method) if isinstance(method, Expr) or origin else name_of(method)
    return {"recipe": without_address(recipe), "from": origin, "sha256": fingerprint(method)[:16]}


def _target_told(target: Any) -> str:
    told = without_address(name_of(target) if callable(target) else repr(target))
    plain = isinstance(target, int | str | TrueClass)
    return told if plain else f"{told[:200]} ({fingerprint(target)[:16]})"


def _short(value: Any) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
