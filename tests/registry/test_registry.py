"""Where methods come from: names without imports, one owner for each name, and nothing left of what failed."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import cnnviz
from cnnviz import PluginError, attribution, hookimpl, renderer
from cnnviz.registry.registry import Method, Registry

ROOT = Path(__file__).parents[2]
GROUPS = ("cnnviz.attributions", "cnnviz.renderers")
Install = Callable[..., Registry[Any]]


@pytest.fixture
def example() -> Method[Any]:
    @attribution
    def example(steps: int = 5, relu: bool = False) -> Any:
        """An example,
        of two lines.

        And a second paragraph.
        """
        return cnnviz.gradient()

    return example


@pytest.fixture
def registry() -> Registry[Any]:
    return Registry(GROUPS[0])


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts distributions on the path, each as {entry point: source of the module it loads}; gives a new registry."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = set(sys.modules)

    def put(**distributions: dict[str, str]) -> Registry[Any]:
        for distribution, offers in distributions.items():
            metadata = tmp_path / f"{distribution}-0.1.dist-info"
            metadata.mkdir()
            (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1\n")
            lines = []
            for name, source in offers.items():
                module = f"{distribution}_{name}"
                (tmp_path / f"{module}.py").write_text(source)
                lines.append(f"{name} = {module}" if "cnnviz_register" in source else f"{name} = {module}:{name}")
            (metadata / "entry_points.txt").write_text("\n".join([f"[{GROUPS[0]}]", *lines, ""]))
        return Registry(GROUPS[0])

    yield put
    for name in set(sys.modules) - modules:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


def method_source(name: str, says: str = "A method.") -> str:
    return f'import cnnviz\n\n@cnnviz.attribution\ndef {name}():\n    """{says}"""\n    return cnnviz.gradient()\n'


# What cnnviz ships


@pytest.mark.parametrize("group", GROUPS)
def test_what_is_declared_is_what_is_installed(group: str) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][group]
    installed = {
        each.name: each.value for each in entry_points(group=group) if each.dist and each.dist.name == "cnnviz"
    }
    assert installed == declared, "the installed metadata is old; run pip install -e . again"
    assert list(declared) == sorted(declared)


@pytest.mark.parametrize("registry", [cnnviz.attributions, cnnviz.renderers], ids=GROUPS)
def test_every_built_in_loads_under_its_own_name(registry: Registry[Any]) -> None:
    for name in registry:
        if registry.origin(name).startswith("cnnviz "):
            assert registry[name].name == name
            assert registry[name].summary.endswith("."), f"{name} has no summary"


# Installed packages


def test_a_module_is_imported_when_its_name_is_looked_up(install: Install) -> None:
    registry = install(stranger={"odd": method_source("odd", "An odd one.")})
    assert "odd" in registry
    assert registry.origin("odd") == "stranger 0.1"
    assert "stranger_odd" not in sys.modules
    assert registry["odd"].summary == "An odd one."
    assert "stranger_odd" in sys.modules
    assert registry["odd"] is registry["odd"]


def test_a_name_of_cnnviz_stays_cnnvizs(install: Install) -> None:
    registry = install(rival={"grad_cam": method_source("grad_cam", "Another.")})
    assert registry["grad_cam"].__module__ == "cnnviz_plugins.attributions.cam"
    assert registry["rival:grad_cam"].summary == "Another."
    assert registry["rival:grad_cam"].name == "rival:grad_cam"
    assert registry.origin("rival:grad_cam") == "rival 0.1"
    assert registry["grad_cam"].name == "grad_cam"


def test_between_strangers_nobody_owns_a_name(install: Install) -> None:
    registry = install(one={"twin": method_source("twin", "One.")}, two={"twin": method_source("twin", "Two.")})
    assert "twin" not in registry
    assert (registry["one:twin"].summary, registry["two:twin"].summary) == ("One.", "Two.")
    with pytest.raises(LookupError, match="'twin' that is only one package's: say 'one:twin' or 'two:twin'"):
        registry["twin"]


def test_a_module_may_carry_the_hook_itself(install: Install) -> None:
    hook = "\n@cnnviz.hookimpl\ndef cnnviz_register(registry):\n    registry.add(odd)\n    registry.add(odd, 'odder')\n"
    registry = install(stranger={"odd": method_source("odd") + hook})
    assert registry["odd"].summary == "A method."
    assert registry.origin("odder") == "stranger 0.1"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_module_that_is_missing", "No module named 'a_module_that_is_missing'"),
        ("1 / 0", "division by zero"),
        ("even = 1", "module 'broken_odd' has no attribute 'odd'"),
        ("odd = print", r"<built-in function print> registers no attribution; decorate it with @cnnviz.attribution"),
        (
            method_source("even") + "\n@cnnviz.hookimpl\ndef cnnviz_register(registry):\n    registry.add(even)\n",
            "it does not register that name",
        ),
        (
            method_source("odd") + "\n@cnnviz.hookimpl\ndef cnnviz_register(registry):\n    registry.add(1, 'odd')\n",
            "'odd' is 1, not a method; decorate it with @cnnviz.attribution",
        ),
    ],
    ids=["import", "error", "missing", "undecorated", "other name", "no method"],
)
def test_a_broken_package_is_named_each_time_it_is_asked_for(install: Install, source: str, reason: str) -> None:
    registry = install(broken={"odd": source}, sound={"fine": method_source("fine")})
    said = rf"'odd' from broken 0.1 does not load: {reason}. Set CNNVIZ_BLOCK=odd to hide it\."
    for _ in range(2):
        with pytest.raises(PluginError, match=said):
            registry["odd"]
    assert "even" not in registry
    assert list(registry.faults()) == ["odd"]
    assert registry["fine"].summary == "A method."


def test_names_are_blocked_by_the_environment(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNVIZ_BLOCK", "odd, one:twin")
    twins = {name: {"twin": method_source("twin")} for name in ("one", "two")}
    registry = install(stranger={"odd": method_source("odd")}, **twins)
    assert {"odd", "one:twin"}.isdisjoint(registry)
    assert "two:twin" in registry
    with pytest.raises(LookupError, match="no attribution 'odd': CNNVIZ_BLOCK hides it"):
        registry["odd"]


def test_what_is_installed_meanwhile_is_found_after_refresh(install: Install) -> None:
    registry = install()
    assert "late" not in registry
    install(stranger={"late": method_source("late")})
    assert "late" not in registry
    registry.refresh()
    assert registry["late"].name == "late"


# In this process


def test_a_method_is_registered_under_its_name_or_another(registry: Registry[Any], example: Method[Any]) -> None:
    registry.register(example)
    assert registry["example"] is example
    assert registry.origin("example") == "this process"
    assert "example" in list(registry)
    assert len(registry) == len(list(registry))


def test_a_taken_name_is_refused_unless_it_is_to_be_replaced(registry: Registry[Any], example: Method[Any]) -> None:
    other = attribution(lambda: cnnviz.gradient())
    registry.register(example)
    with pytest.raises(ValueError, match="'example' is taken by this process; register it under another name"):
        registry.register(other, "example")
    assert registry["example"] is example
    registry.register(other, "example", replace=True)
    assert registry["example"].build is other.build
    assert registry["example"].name == "example"
    registry.register(example, replace=True)
    assert registry["example"] is example


@pytest.mark.parametrize("replace", [False, True])
def test_a_name_that_cnnviz_ships_is_never_taken(registry: Registry[Any], replace: bool, example: Method[Any]) -> None:
    before = registry["grad_cam"]
    for fresh in (registry, Registry(GROUPS[0])):
        with pytest.raises(ValueError, match=r"'grad_cam' is taken by cnnviz [\d.]+; register it under another name"):
            fresh.register(example, "grad_cam", replace=replace)
        assert fresh["grad_cam"] is before


@pytest.mark.parametrize(
    ("plugin", "name", "error", "message"),
    [
        (print, None, TypeError, "registers no attribution; decorate it with @cnnviz.attribution"),
        (attribution(lambda: 0), "Not a Name", ValueError, "'Not a Name' is no name for a method; use lower-case"),
        (ModuleType("empty"), None, TypeError, "registers no attribution"),
    ],
)
def test_a_failed_register_leaves_nothing_behind(
    registry: Registry[Any], plugin: Any, name: str | None, error: type[Exception], message: str, example: Method[Any]
) -> None:
    before, held = list(registry), registry.plugins.list_name_plugin()
    with pytest.raises(error, match=message):
        registry.register(plugin, name)
    assert list(registry) == before
    assert registry.plugins.list_name_plugin() == held
    registry.register(example)
    assert registry["example"] is example


def test_a_hook_that_fails_halfway_leaves_nothing_behind(registry: Registry[Any], example: Method[Any]) -> None:
    module = ModuleType("family")

    @hookimpl
    def cnnviz_register(registry: Registry[Any]) -> None:
        registry.add(example, "first")
        raise OSError("the disk is full")

    module.cnnviz_register = cnnviz_register  # type: ignore[attr-defined]  # as a file would have it
    with pytest.raises(OSError, match="the disk is full"):
        registry.register(module)
    assert "first" not in registry
    assert not registry.plugins.has_plugin("family")
    registry.register(example, "first")


def test_a_method_keeps_its_name_when_it_is_offered_under_another(
    registry: Registry[Any], example: Method[Any]
) -> None:
    module = ModuleType("family")

    @hookimpl
    def cnnviz_register(registry: Registry[Any]) -> None:
        registry.add(example)
        registry.add(example, "second")

    module.cnnviz_register = cnnviz_register  # type: ignore[attr-defined]  # as a file would have it
    registry.register(module)
    assert (example.name, registry["example"].name, registry["second"].name) == ("example", "example", "second")
    assert repr(registry["example"](steps=3)) == "example(steps=3)"
    assert repr(registry["second"](steps=3)) == "second(steps=3)"


def test_a_method_whose_registration_fails_keeps_its_name(registry: Registry[Any], example: Method[Any]) -> None:
    module = ModuleType("family")

    @hookimpl
    def cnnviz_register(registry: Registry[Any]) -> None:
        registry.add(example, "second")
        registry.add(example, "Not a Name")

    module.cnnviz_register = cnnviz_register  # type: ignore[attr-defined]  # as a file would have it
    with pytest.raises(ValueError, match="'Not a Name' is no name for a method"):
        registry.register(module)
    assert example.name == "example"


def test_add_is_for_plugins_alone(registry: Registry[Any], example: Method[Any]) -> None:
    with pytest.raises(RuntimeError, match=r"Registry\.add is for plugins while they register"):
        registry.add(example)


# What a method is


def test_a_method_tells_its_settings_and_refuses_others(example: Method[Any]) -> None:
    assert list(example.settings) == ["steps", "relu"]
    assert example.summary == "An example, of two lines."
    with pytest.raises(TypeError, match=r"example has no setting 'step'; did you mean 'steps'\?"):
        example(step=3)
    with pytest.raises(TypeError, match="example has no setting 'zzz'; it takes steps, relu"):
        example(zzz=3)
    with pytest.raises(TypeError, match="example: too many positional arguments; it takes steps, relu"):
        example(1, True, 3)


def test_a_recipe_has_the_settings_that_were_changed(example: Method[Any]) -> None:
    assert repr(example()) == "example()"
    assert repr(example(5, relu=True)) == "example(relu=True)"
    assert repr(example(steps=6)) == "example(steps=6)"


def test_a_renderer_is_a_method_too() -> None:
    @renderer
    def blank(shade: int = 0) -> Any:
        """Nothing."""
        return lambda explanation: shade

    assert isinstance(blank, Method)
    assert blank(shade=3)(None) == 3


def test_unknown_names_have_a_hint(registry: Registry[Any]) -> None:
    with pytest.raises(LookupError, match=r"there is no attribution 'gradcam'; did you mean 'grad_cam'\?"):
        registry["gradcam"]
    with pytest.raises(LookupError, match=r"there is no attribution 'zzz'; there are .*grad_cam"):
        registry["zzz"]
