"""Methods by name: offered by installed entry points, each of them loaded when it is first asked for.

Listing names reads package metadata and imports nothing; a plugin that does not load hurts only who asks for it.
"""

from __future__ import annotations

import inspect
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property, update_wrapper
from importlib.metadata import EntryPoint, entry_points
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_type_hints, overload

import pluggy

from cnnviz.images.in_notebooks import InNotebooks
from cnnviz.registry.configured import Canvas, ConfiguredMethod, ConfiguredRenderer
from cnnviz.registry.hooks import HOME, Hooks, hookimpl
from cnnviz.registry.import_watch import way_out
from cnnviz.registry.origins import dist_of, origin_of
from cnnviz.registry.peer_names import of_methods, of_settings
from cnnviz.registry.setting_types import check_types

if TYPE_CHECKING:
    from cnnviz.registry.protocols import Backend, ConfiguredAttribution, Metric, Renderer, Synthesis

T = TypeVar("T", covariant=True)
DefaultFor = Literal["coarse", "fine", "all"]
M = TypeVar("M", bound="Method[Any]", covariant=True)
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


class PluginError(RuntimeError):
    """A plugin does not load; the message names its package and how to go on without it."""


class Method(InNotebooks, Generic[T]):
    """A function from settings to a callable; also the pluggy plugin that offers it."""

    def __init__(
        self, build: Callable[..., Any], finish: Callable[[ConfiguredMethod], Any] = lambda configured: configured
    ):
        update_wrapper(self, build)
        self.build = build
        self.finish = finish
        self.name: str = build.__name__

    def __call__(self, *args: Any, **settings: Any) -> T:
        """The method with these settings.

        Raises TypeError for one it does not have, with the nearest name, and for a value that does not fit the
        annotation of its setting. Handed what methods are asked about, such as a run or an explanation, it is called
        with its defaults: a method that nobody has called yet may stand wherever one with settings does.
        """
        if len(args) == 1 and not settings and getattr(type(args[0]), "subject_of_methods", False):
            built: Any = self()
            answer: T = built(args[0])
            return answer
        chosen = self.bind(*args, **settings)
        changed = {name: value for name, value in chosen.items() if not _same(value, self.settings[name].default)}
        check_types(self.name, changed, self.types)
        method: T = self.finish(ConfiguredMethod(self.name, self.build(**chosen), tuple(changed.items())))
        return method

    @property
    def settings(self) -> Mapping[str, inspect.Parameter]:
        """The settings by name, with their annotations and defaults."""
        return inspect.signature(self.build).parameters

    @cached_property
    def types(self) -> Mapping[str, Any]:
        """The types of the settings by name, with their ``Annotated`` metadata.

        A setting without annotation is left out, and one whose annotation holds names that are not defined at run time.
        """
        types: dict[str, Any] = {}
        defined = getattr(inspect.unwrap(self.build), "__globals__", {})
        for name, parameter in self.settings.items():
            if parameter.annotation is not inspect.Parameter.empty:
                holder: Any = SimpleNamespace(__annotations__={name: parameter.annotation})
                try:
                    types |= get_type_hints(holder, defined, include_extras=True)
                except Exception:  # an annotation may be any text, and says nothing then
                    continue
        return types

    @property
    def summary(self) -> str:
        """The first paragraph of the docstring, in one line."""
        return " ".join((inspect.getdoc(self.build) or "").split("\n\n")[0].split())

    def bind(self, *args: Any, **settings: Any) -> dict[str, Any]:
        """The settings by name, positional ones too. Raises TypeError for one that the method does not have."""
        for name in settings:
            if name not in self.settings:
                raise TypeError(f"{self.name} has no setting {name!r}; {of_settings(name, self.settings)}")
        try:
            return dict(inspect.signature(self.build).bind(*args, **settings).arguments)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}; it takes {', '.join(self.settings) or 'no settings'}") from None

    def __repr__(self) -> str:
        return f"<method {self.name} from {self.__module__}>"

    @hookimpl
    def cnnviz_register(self, registry: Registry[Any]) -> None:
        registry.add(self)


class RendererMethod(Method[ConfiguredRenderer]):
    """A renderer's function from settings, and the inputs it is for."""

    def __init__(self, build: Callable[..., Renderer], ranks: Sequence[int], default: DefaultFor | None, on: Canvas):
        super().__init__(build, lambda made: ConfiguredRenderer(made.name, made.function, made.settings, on))
        self.ranks = tuple(ranks)
        """The numbers of spatial dimensions that it draws."""
        self.default_for = default
        """The values that it draws if no renderer is named."""


class Registry(InNotebooks, Mapping[str, M]):
    """Methods of one kind by name."""

    def __init__(self, group: str):
        self.group = group
        self.kind = {"cnnviz.syntheses": "synthesis"}.get(group, group.rpartition(".")[2].removesuffix("s"))
        self._methods: dict[str, M] = {}
        self._origins: dict[str, str] = {}
        self._entries: dict[str, EntryPoint] | None = None
        self._modules: list[tuple[str, str]] | None = None
        self._loading: tuple[str, object, str] | None = None
        self._lock = threading.RLock()  # a plugin may look up others while it loads
        self.plugins = pluggy.PluginManager(HOME)
        self.plugins.add_hookspecs(Hooks)
        self.plugins.hook.cnnviz_register.call_historic(kwargs={"registry": self})
        for name in os.environ.get("CNNVIZ_BLOCK", "").replace(",", " ").split():
            self.plugins.set_blocked(name)

    def register(self, plugin: object, name: str | None = None, *, replace: bool = False) -> None:
        """Register a method, or a module with a hook, in this process only, as a notebook or a test does.

        Raises ValueError for a name that is taken; ``replace=True`` takes it from an earlier registration in this
        process, never from an installed package.
        """
        name = name or str(getattr(plugin, "__name__", repr(plugin)))
        with self._lock:
            if replace and self._origins.get(name) == "this process":
                self.plugins.unregister(name=name)
                del self._methods[name], self._origins[name]
            self._enlist(plugin, name, "this process")

    def add(self, method: Any, name: str | None = None) -> None:
        """Add a method under its name or another; plugins call it in ``cnnviz_register``, once for each method.

        Raises RuntimeError outside of that hook, TypeError for what is no method, ValueError for a name that is taken
        or not made of lower-case letters, digits and underscores.
        """
        if self._loading is None:
            raise RuntimeError("Registry.add is for plugins while they register; call register(method) instead")
        entry, plugin, origin = self._loading
        name = name or (entry if plugin is method else method.name)
        if not isinstance(method, Method):
            raise TypeError(f"{name!r} is {method!r}, not a method; decorate it with @cnnviz.{self.kind}")
        if not NAME.fullmatch(name.rpartition(":")[2]):
            raise ValueError(f"{name!r} is no name for a method; use lower-case letters, digits and underscores")
        offered = origin_of(self._offers()[name]) if name in self._offers() else None
        taken = self._origins.get(name) or (offered if offered != origin else None)
        if taken is not None:
            raise ValueError(f"{name!r} is taken by {taken}; register it under another name")
        if method.name != name:
            method = copy(method)  # who has it under its own name keeps that
            method.name = name
        self._methods[name], self._origins[name] = method, origin

    def __getitem__(self, name: str) -> M:
        with self._lock:
            if name not in self._methods:
                offer = self._offers().get(name)
                if offer is None:
                    raise LookupError(f"there is no {self.kind} {name!r}{self._absence(name)}")
                try:
                    self._enlist(offer.load(), name, origin_of(offer))
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # a module may call sys.exit() while it is imported
                    why = f"it raises {error!r} while it is imported"
                    if isinstance(error, Exception):
                        why = " ".join(str(error).split())
                    raise PluginError(
                        f"{name!r} from {origin_of(offer)} does not load: {why}. Set CNNVIZ_BLOCK={name} to hide it."
                    ) from error
            return self._methods[name]

    def __contains__(self, name: object) -> bool:
        return name in self._methods or name in self._offers()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._methods.keys() | self._offers().keys()))

    def __len__(self) -> int:
        return len(self._methods.keys() | self._offers().keys())

    def __repr__(self) -> str:
        return f"<{len(self)} {self.group.rpartition('.')[2]}: {', '.join(self) or 'none'}>"

    def origin(self, name: str) -> str:
        """The distribution that offers the name, with its version: ``cnnviz 0.4.0``."""
        return self._origins.get(name) or origin_of(self._offers()[name])

    def modules(self) -> list[tuple[str, str]]:
        """The modules of installed packages that offer methods, each as (package, module); nothing is imported."""
        if self._modules is None:  # the name of a package is read from its metadata each time
            self._modules = sorted({(dist_of(entry), entry.module) for entry in self._offers().values()})
        return self._modules

    def faults(self) -> dict[str, PluginError]:
        """Load every method; the errors of those that do not load, by name."""
        faults = {}
        for name in self:
            try:
                self[name]
            except PluginError as error:
                faults[name] = error
        return faults

    def refresh(self) -> None:
        """Read the entry points anew, for a process that installs packages while it runs."""
        self._entries = self._modules = None

    def _offers(self) -> dict[str, EntryPoint]:
        """Entry points by method name; a name that several packages claim is cnnviz's, or only ``package:name``."""
        if self._entries is None:
            rivals: dict[str, list[EntryPoint]] = {}
            for entry in entry_points(group=self.group):
                rivals.setdefault(entry.name, []).append(entry)
            offers: dict[str, EntryPoint] = {}
            for name, entries in rivals.items():
                owners = [entry for entry in entries if dist_of(entry) == HOME] or entries
                for entry in entries:
                    offers[name if [entry] == owners else f"{dist_of(entry)}:{name}"] = entry
            self._entries = {name: entry for name, entry in offers.items() if not self.plugins.is_blocked(name)}
        return self._entries

    def _enlist(self, plugin: object, name: str, origin: str) -> None:
        if self.plugins.is_blocked(name):
            raise ValueError(f"{name!r} is hidden by CNNVIZ_BLOCK; take it out of there, or register another name")
        known = name if self.plugins.has_plugin(name) else self.plugins.get_name(plugin)
        if known is not None:
            taken = self._origins.get(known, "this process")
            raise ValueError(f"{known!r} is taken by {taken}; register it under another name")
        before, outer = (dict(self._methods), dict(self._origins)), self._loading
        self._loading = (name, plugin, origin)
        try:
            self.plugins.register(plugin, name=name)
            if self._methods == before[0]:
                raise TypeError(f"{plugin!r} registers no {self.kind}; {way_out(plugin, self.kind)}")
            if origin != "this process" and name not in self._methods:
                raise LookupError("it does not register that name")
        except BaseException:
            self._methods, self._origins = before
            if self.plugins.get_plugin(name) is plugin:
                self.plugins.unregister(name=name)  # pluggy keeps the name of a plugin whose hook failed
            raise
        finally:
            self._loading = outer

    def _absence(self, name: str) -> str:
        rivals = [other for other in self._offers() if other.endswith(f":{name}")]
        if rivals:
            return f" that is only one package's: say {' or '.join(map(repr, rivals))}"
        if self.plugins.is_blocked(name):
            return ": CNNVIZ_BLOCK hides it"
        kind = next((other.kind for other in registries if name in other), None)
        return f"; {f'{name!r} is a {kind}; ' if kind else ''}{of_methods(name, self)}"


@overload
def renderer(build: Callable[..., Renderer], /) -> RendererMethod: ...


@overload
def renderer(
    *, ranks: Sequence[int] = (2,), default_for: DefaultFor | None = None, canvas: Canvas = "picture"
) -> Callable[[Callable[..., Renderer]], RendererMethod]: ...


def renderer(
    build: Callable[..., Renderer] | None = None,
    /,
    *,
    ranks: Sequence[int] = (2,),
    default_for: DefaultFor | None = None,
    canvas: Canvas = "picture",
) -> Any:
    """Make a renderer of a function from settings to a callable that draws an explanation.

    That callable takes an :class:`~cnnviz.Explanation` and returns uint8 pictures (N, H, W, 3). ``ranks`` are the
    numbers of spatial dimensions it draws: a method that names this renderer for its values gets it for those inputs.
    ``default_for`` says which values of such inputs it draws if no renderer is named: "fine" ones, of the input's own
    shape, "coarse" ones, of any other, or "all". A default that cnnviz ships comes before a plugin's. ``canvas`` says
    what happens at ``render(..., at="original")``: of a "picture" the rest of the original is shown as it is, of a
    "map" as it is drawn where the map is zero; a "figure" has a layout of its own, and lies over no picture.
    """

    def make(build: Callable[..., Renderer]) -> RendererMethod:
        return RendererMethod(build, ranks, default_for, canvas)

    return make if build is None else make(build)


def synthesis(build: Callable[..., Synthesis]) -> Method[ConfiguredMethod]:
    """Make a synthesis of a function from settings to a callable that makes inputs.

    That callable takes an :class:`~cnnviz.Ascent` and returns inputs (N, C, *spatial).
    """
    return Method(build)


def metric(build: Callable[..., Metric]) -> Method[ConfiguredMethod]:
    """Make a metric of a function from settings to a callable that scores explanations.

    That callable takes a :class:`~cnnviz.Trial` and returns a number for each input, (N,).
    """
    return Method(build)


def backend(build: Callable[..., Backend]) -> Method[ConfiguredMethod]:
    """Make a backend of batch runs of a function from settings to a callable that starts workers.

    That callable takes a :class:`cnnviz.datasets.Job` and returns :class:`cnnviz.datasets.Workers`.
    """
    return Method(build)


def _same(value: Any, default: Any) -> bool:
    plain = isinstance(value, bool | int | float | str) and type(value) is type(default)
    return value is default or (plain and bool(value == default))


attributions: Registry[Method[ConfiguredAttribution]] = Registry("cnnviz.attributions")
metrics: Registry[Method[ConfiguredMethod]] = Registry("cnnviz.metrics")
renderers: Registry[RendererMethod] = Registry("cnnviz.renderers")
syntheses: Registry[Method[ConfiguredMethod]] = Registry("cnnviz.syntheses")
backends: Registry[Method[ConfiguredMethod]] = Registry("cnnviz.backends")
registries: tuple[Registry[Any], ...] = (attributions, syntheses, renderers, metrics, backends)
