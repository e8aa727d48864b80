"""The package that the page shows is built, installed and used; broken and rival ones beside it harm nobody."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import cnnviz

PAGE = Path(__file__).parents[2] / "docs" / "write-an-attribution.md"
PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{distribution}"
version = "0.1"

[project.entry-points."cnnviz.attributions"]
{name} = "{module}:{name}"
"""
METHOD = '''\
from cnnviz import attribution, gradient


@attribution
def {name}():
    """Of {distribution}."""
    return gradient()
'''
Process = subprocess.CompletedProcess[str]
Python = Callable[..., Process]


def shown_files() -> dict[str, str]:
    """The files of the page, by the names it gives them."""
    return dict(re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)^```$", PAGE.read_text(), re.M | re.S))


def package(folder: Path, distribution: str, name: str, source: str = METHOD) -> Path:
    """A package that offers one method."""
    module = distribution.replace("-", "_")
    folder = folder / distribution
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PYPROJECT.format(distribution=distribution, name=name, module=module))
    (folder / f"{module}.py").write_text(source.format(distribution=distribution, name=name))
    return folder


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's package as its author has it."""
    folder = tmp_path_factory.mktemp("rising-cam")
    for name, text in shown_files().items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def site(shown: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it is installed, next to one that does not import, one that takes a name of cnnviz's, and two namesakes."""
    sources, site = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("site")
    others = [
        package(sources, "broken", "lame", "import a_module_that_is_missing\n"),
        package(sources, "rival", "grad_cam"),
        package(sources, "first-twin", "twin"),
        package(sources, "second-twin", "twin"),
    ]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    install += ["--no-deps", "--no-build-isolation", "--target", str(site), *map(str, [shown, *others])]
    subprocess.run(install, check=True)
    return site


@pytest.fixture
def python(site: Path, tmp_path: Path) -> Python:
    """Runs a fresh process in an empty folder, where the packages are installed."""

    def run(*args: str, **variables: str) -> Process:
        everywhere = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = os.environ | {"PYTHONPATH": everywhere, "OMP_NUM_THREADS": "1"} | variables
        return subprocess.run(
            [sys.executable, *args], capture_output=True, text=True, check=False, env=env, cwd=tmp_path, timeout=120
        )

    return run


def answers(python: Python, code: str, **variables: str) -> dict[str, object]:
    """What the code puts into ``found``, as JSON."""
    done = python("-c", f"import json\nfound = {{}}\n{code}\nprint(json.dumps(found))", **variables)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_the_page_shows_a_whole_package_of_fifteen_lines() -> None:
    files = shown_files()
    assert sorted(files) == ["pyproject.toml", "rising_cam.py", "test_rising_cam.py"]
    assert len([line for line in files["rising_cam.py"].splitlines() if line.strip()]) <= 15


def test_methods_lists_all_of_them_and_what_is_broken(python: Python) -> None:
    done = python("-m", "cnnviz", "methods", "--plain")
    assert done.returncode == 0, done.stderr
    rows = {tuple(line.split("\t")[:2]): line for line in done.stdout.splitlines()}
    ours = {("attribution", name) for name in cnnviz.attributions if cnnviz.attributions.origin(name) == home()}
    offered = {"rising_cam", "lame", "rival:grad_cam", "first-twin:twin", "second-twin:twin"}
    assert rows.keys() >= ours | {("attribution", name) for name in offered}
    assert ("attribution", "twin") not in rows
    assert "rising-cam 0.1.0" in rows["attribution", "rising_cam"]
    assert "Positive activation times positive gradient" in rows["attribution", "rising_cam"]
    assert "does not load: No module named 'a_module_that_is_missing'" in rows["attribution", "lame"]
    assert home() in rows["attribution", "grad_cam"]
    assert "Of rival." in rows["attribution", "rival:grad_cam"]


def home() -> str:
    from importlib.metadata import version

    return f"cnnviz {version('cnnviz')}"


def test_it_works_by_name_and_in_formulas_and_is_loaded_only_then(python: Python) -> None:
    found = answers(
        python,
        """
import sys
import torch
from cnnviz import attributions, upsample
list(attributions)
found["early"] = "rising_cam" in sys.modules
import cnnviz
from cnnviz.testing import SmallNet
model, inputs = SmallNet(), torch.randn(2, 3, 12, 10)
by_name = cnnviz.explain(model, inputs, "rising_cam")
found["recipe"] = by_name.recipe
sharp = attributions["guided_backprop"]() * upsample(attributions["rising_cam"]("second"))
found["formula"] = cnnviz.explain(model, inputs, sharp).recipe
whole = cnnviz.explain(model, inputs, "rising_cam", layer="second").values
guided = cnnviz.explain(model, inputs, "guided_backprop").values
product = guided * torch.nn.functional.interpolate(whole, (12, 10), mode="bilinear")
found["right"] = torch.allclose(cnnviz.explain(model, inputs, sharp).values, product)
found["of"] = cnnviz.explain(model, inputs, "smoothgrad", of="rising_cam", samples=2).recipe
found["others"] = [name for name in ("broken", "rival", "first_twin") if name in sys.modules]
""",
    )
    assert found["early"] is False
    assert found["others"] == []
    assert str(found["recipe"]).startswith("rising_cam(layer='")
    assert "guided_backprop() * upsample(" in str(found["formula"])
    assert "rising_cam(layer='second')" in str(found["formula"])
    assert found["right"] is True
    assert "of=rising_cam(" in str(found["of"])


def test_the_command_line_takes_its_settings(python: Python, tmp_path: Path) -> None:
    Image.new("RGB", (96, 96), "gray").save(tmp_path / "picture.png")
    explain = ("-m", "cnnviz", "explain", "picture.png", "--method", "rising_cam")
    done = python(*explain, "--layer", "layer2", "-o", "map.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "map.png").exists()


def test_its_own_test_passes(python: Python, shown: Path) -> None:
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(shown / "test_rising_cam.py"))
    assert done.returncode == 0, done.stdout


def test_broken_and_rival_packages_hurt_only_who_asks_for_them(python: Python) -> None:
    found = answers(
        python,
        """
from cnnviz import PluginError, attributions
def said(name):
    try:
        return attributions.origin(attributions[name].name) + ": " + attributions[name].summary
    except (PluginError, LookupError) as error:
        return type(error).__name__ + ": " + str(error)
for name in ("lame", "twin", "grad_cam", "rival:grad_cam", "first-twin:twin", "second-twin:twin", "lame"):
    found.setdefault(name, []).append(said(name))
found["faults"] = list(attributions.faults())
""",
    )
    broken = (
        "PluginError: 'lame' from broken 0.1 does not load: No module named 'a_module_that_is_missing'. "
        "Set CNNVIZ_BLOCK=lame to hide it."
    )
    assert found["lame"] == [broken, broken]
    rivals = "say 'first-twin:twin' or 'second-twin:twin'"
    assert found["twin"] == [f"LookupError: there is no attribution 'twin' that is only one package's: {rivals}"]
    (ours,) = found["grad_cam"]  # type: ignore[misc]  # a list of one, of JSON
    assert ours.startswith(f"{home()}: Channels weighted by their mean gradient")
    assert found["rival:grad_cam"] == ["rival 0.1: Of rival."]
    assert found["first-twin:twin"] == ["first-twin 0.1: Of first-twin."]
    assert found["second-twin:twin"] == ["second-twin 0.1: Of second-twin."]
    assert found["faults"] == ["lame"]


def test_doctor_tells_of_the_broken_one(python: Python) -> None:
    done = python("-m", "cnnviz", "doctor")
    assert done.returncode == 1, done.stdout
    (fault,) = [line for line in done.stdout.splitlines() if line.startswith("fault:")]
    assert fault.startswith("fault: 'lame' from broken 0.1 does not load: No module named 'a_module_that_is_missing'")


def test_names_can_be_blocked(python: Python) -> None:
    healthy = python("-m", "cnnviz", "doctor", CNNVIZ_BLOCK="lame,rival:grad_cam")
    assert healthy.returncode == 0, healthy.stdout
    found = answers(
        python,
        """
from cnnviz import attributions
found["names"] = list(attributions)
try:
    attributions["lame"]
except LookupError as error:
    found["said"] = str(error)
""",
        CNNVIZ_BLOCK="lame, rival:grad_cam",
    )
    names = set(found["names"])  # type: ignore[call-overload]  # a list, of JSON
    assert names.isdisjoint({"lame", "rival:grad_cam"})
    assert names >= {"rising_cam", "grad_cam", "first-twin:twin"}
    assert found["said"] == "there is no attribution 'lame': CNNVIZ_BLOCK hides it"
