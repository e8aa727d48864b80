"""From the arguments of a batch run to its question and its backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from cnnviz.datasets.plan import (
    BatchPlan,
)
from cnnviz.datasets.question import BatchQuestion, Fixed, TrueClass, as_loaded
from cnnviz.datasets.shards.kept_maps import MapStorage
from cnnviz.datasets.workers.arithmetic import arithmetic_of
from cnnviz.datasets.workers.fingerprint import without_address
from cnnviz.engine.device_policy import policy_of
from cnnviz.engine.validation import as_network, check_model
from cnnviz.explanations.options import ExplainOptions
from cnnviz.formulas.scores_only import check_seen
from cnnviz.images.limits import current_limit
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.protocols import Attribution, Backend, Metric
from cnnviz.registry.registry import Registry, attributions, backends, metrics
from cnnviz.registry.resolve import resolve
from cnnviz.run.resolve_target import several, top
from cnnviz.run.targets import Target

BATCH = {"cpu": 8, "cuda": 64}
"""How many items pass together on a kind of device, if nobody says it."""


def asked(
    model: nn.Module | LoadedModel | Callable[..., Any],
    methods: str | Attribution | Sequence[str | Attribution] | Mapping[str, Attribution],
    measures: str | Metric | Sequence[str | Metric] | Mapping[str, Metric],
    options: ExplainOptions,
    storage: MapStorage,
    target: Target | TrueClass,
    settings: Mapping[str, Any],
    *,
    preprocessing: Any = None,
    categories: Sequence[str] | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    there: BatchPlan | None = None,
) -> BatchQuestion:
    """The question of these arguments of :func:`batch`; what is not given is as in the plan that is there."""
    if isinstance(target, top | several):
        raise TypeError(f"{target!r} is several questions, and a batch run asks one; run one for each target")
    loaded = as_loaded(model, preprocessing, categories)
    network = as_network(loaded.module)
    check_model(network)
    own, of_metrics = _settings_of(methods, attributions, settings), _settings_of(measures, metrics, settings)
    # those of nobody go to the methods, which say so
    own |= {name: value for name, value in settings.items() if name not in own and name not in of_metrics}
    chosen = _named(attributions, methods, own, "a method's name, a formula, or a callable of a run", "a formula")
    if not chosen:
        raise ValueError("no method was named; name at least one, such as methods='grad_cam'")
    check_seen(network, chosen)
    scorers = _named(
        metrics, measures, of_metrics, "a metric's name, or a callable of a trial", "a callable of a trial"
    )
    known = there.identity.get("fixed", {}) if there is not None else {}
    weight = next(network.parameters(), None)
    where = torch.device(device or known.get("device") or (weight.device.type if weight is not None else "cpu"))
    memory = options.memory or known.get("memory") or policy_of(where).budget
    fixed = Fixed(
        batch_size or known.get("batch") or BATCH.get(where.type, 8),
        memory,
        threads or known.get("threads") or 1,
        where.type,
    )
    arithmetic = arithmetic_of(where.type)
    return BatchQuestion(loaded, chosen, scorers, target, options, storage, fixed, current_limit(), arithmetic)


def _named(registry: Registry[Any], given: Any, settings: Mapping[str, Any], forms: str, configured: str) -> Any:
    """Methods or metrics by name. Those that have names already take no settings."""
    if isinstance(given, Mapping):
        wrong = next((each for each in given.values() if not callable(each)), None)
        if wrong is not None or settings:
            what = repr(wrong) if wrong is not None else f"the setting {next(iter(settings))!r}"
            raise TypeError(
                f"{what} can't be given beside names; give configured methods by name, such as "
                "{'coarse': cnnviz.attributions['occlusion'](window=16)}"
            )
        return dict(given)
    if not given:
        return {}
    named: dict[str, Any] = {}
    for name, each in resolve(registry, given, settings, forms=forms, configured=configured).items():
        if named.setdefault(without_address(name), each) is not each:
            raise ValueError(f"two {registry.kind}s are called {without_address(name)!r}; give them names, in a dict")
    return named


def _settings_of(methods: Any, registry: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that one of the methods has."""
    if isinstance(methods, Mapping):
        return {}
    given = [methods] if isinstance(methods, str) or callable(methods) else list(methods)
    known = [registry[each] if isinstance(each, str) else each for each in given]
    return {
        name: value for name, value in settings.items() if any(name in getattr(each, "settings", ()) for each in known)
    }


def backend_of(backend: str | Backend, workers: int | None) -> Backend:
    """The backend of that name, or the one given. Raises LookupError for an unknown name."""
    if not isinstance(backend, str):
        if workers is not None:
            raise TypeError(f"workers={workers} is a setting of a backend given by name; this one has its own")
        return backend
    method = backends[backend]
    return method() if workers is None else method(workers=workers)
