"""Every check of every method of a package, to hand to a test framework."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnnviz import attributions, backends, metrics, renderers, syntheses
from cnnviz.registry.registry import Registry
from cnnviz.testing.attributions import ATTRIBUTION_CHECKS, AttributionSubject
from cnnviz.testing.backend_subject import BackendSubject
from cnnviz.testing.backends import BACKEND_CHECKS
from cnnviz.testing.metrics import METRIC_CHECKS, MetricSubject
from cnnviz.testing.renderers import RENDERER_CHECKS, RendererSubject
from cnnviz.testing.subject import Subject
from cnnviz.testing.syntheses import SYNTHESIS_CHECKS, SynthesisSubject

Settings = Mapping[str, Any]
RANKS = {1: "signals", 2: "images", 3: "volumes"}


def checks(
    package: str,
    settings: Mapping[str, Settings | Sequence[Settings]] | None = None,
    *,
    kind: str | None = None,
    ranks: Sequence[int] = (1, 2, 3),
) -> list[Check]:
    """Every check of every method that a package registers.

    Each is a test of its own, named after the method and the promise::

        @pytest.mark.parametrize("check", checks("rising-cam"))
        def test_promises(check):
            check()

    Args:
        package: the distribution's name in its ``pyproject.toml``, or ``"this process"`` for what was registered here.
        settings: by the method's name, what ``check_attribution`` and the others take beside the method, such as
            ``{"rising_cam": {"layer": "third"}}``; a list of them checks the method with each. Defaults otherwise.
        kind: "attribution", "renderer", "metric", "synthesis" or "backend" alone; None: all five.
        ranks: the spatial dimensions that attributions and syntheses are checked with. Renderers and metrics are
            handed all, and may refuse.

    Raises:
        LookupError: where the package registers no method, settings are of no method, or there is no such kind.
    """
    kinds = [registry.kind for registry, *_ in _KINDS]
    if kind not in (None, *kinds):
        raise LookupError(f"there is no kind {kind!r}; choose {', '.join(kinds)}")
    found = list(_checks(package, settings or {}, kind, ranks))
    if not found:
        offered = sorted({_distribution(registry, name) for registry, *_ in _KINDS for name in registry})
        raise LookupError(
            f"no {kind or 'method'} of {package!r} is registered; install the package (pip install -e .), "
            f"or give one of {', '.join(offered)}"
        )
    unknown = set(settings or {}) - {check.method for check in found}
    if unknown:
        raise LookupError(f"settings are given for {', '.join(sorted(unknown))}, which {package!r} does not register")
    return found


@dataclass(frozen=True, eq=False)
class Check:
    """One promise of one method. Calling it raises AssertionError where the promise is broken."""

    method: str
    """The method's name."""
    situation: str
    """What it is checked with; empty for all that there is, with default settings."""
    promise: Callable[[Any], None]
    subject: _Once = field(repr=False)

    @property
    def __name__(self) -> str:
        """The test's name, such as ``rising_cam-images-explains_the_target``."""
        return "-".join(filter(None, (self.method, self.situation, self.promise.__name__)))

    def __call__(self) -> None:
        self.promise(self.subject())


class _Once:
    """What is made when it is first needed, so that a plugin that does not load fails in its tests alone."""

    def __init__(self, make: Callable[[], Subject]):
        self.make, self.made = make, None

    made: Subject | None

    def __call__(self) -> Subject:
        if self.made is None:
            self.made = self.make()
        return self.made


def _checks(
    package: str, settings: Mapping[str, Settings | Sequence[Settings]], kind: str | None, ranks: Sequence[int]
) -> Iterator[Check]:
    for registry, subject_of, promises, ranked in _KINDS:
        if kind not in (None, registry.kind):
            continue
        for name in registry:
            if _normal(_distribution(registry, name)) != _normal(package):
                continue
            given = settings.get(name, {})
            several = [given] if isinstance(given, Mapping) else list(given)
            for number, each in enumerate(several):
                for rank in ranks if ranked and "rank" not in each else (None,):
                    told = {**each} if rank is None else {**each, "rank": rank}
                    words = [RANKS[told["rank"]]] if "rank" in told else []
                    words += [str(number)] if len(several) > 1 else []
                    subject = _Once(lambda name=name, told=told, subject_of=subject_of: subject_of(name, **told))  # type: ignore[misc]
                    for promise in promises:
                        yield Check(name, "-".join(words), promise, subject)


_KINDS: tuple[tuple[Registry[Any], Callable[..., Subject], tuple[Callable[[Any], None], ...], bool], ...] = (
    (attributions, AttributionSubject.of, ATTRIBUTION_CHECKS, True),
    (syntheses, SynthesisSubject.of, SYNTHESIS_CHECKS, True),
    (renderers, RendererSubject.of, RENDERER_CHECKS, False),
    (metrics, MetricSubject.of, METRIC_CHECKS, False),
    (backends, BackendSubject.of, BACKEND_CHECKS, False),
)


def _distribution(registry: Registry[Any], name: str) -> str:
    origin = registry.origin(name)
    return origin if origin == "this process" else origin.rpartition(" ")[0]


def _normal(distribution: str) -> str:
    """Distributions are the same whatever the case, and with dashes, dots or underscores."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
