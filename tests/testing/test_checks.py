"""Every method of a package is handed to a test framework, each promise by itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cnnviz
from cnnviz import attributions, backends, metrics, renderers, syntheses
from cnnviz.testing import checks
from cnnviz.testing.attributions import ATTRIBUTION_CHECKS
from cnnviz.testing.backends import BACKEND_CHECKS
from cnnviz.testing.metrics import METRIC_CHECKS
from cnnviz.testing.renderers import RENDERER_CHECKS
from cnnviz.testing.syntheses import SYNTHESIS_CHECKS


@pytest.fixture
def _registered() -> Iterator[None]:
    @cnnviz.attribution
    def right_slopes(scale: float = 1.0) -> Any:
        """The gradient."""
        return scale * cnnviz.gradient()

    @cnnviz.metric
    def wrong_metric() -> Any:
        """It forgets all inputs but the first."""
        return lambda trial: trial.evidence.flatten(1).mean(1)[:1]

    attributions.register(right_slopes)
    metrics.register(wrong_metric)
    yield
    for registry, name in ((attributions, "right_slopes"), (metrics, "wrong_metric")):
        registry.plugins.unregister(name=name)
        del registry._methods[name], registry._origins[name]


def test_every_method_of_cnnviz_meets_every_check_of_its_kind() -> None:
    found = checks("cnnviz")
    names = [check.__name__ for check in found]
    assert len(names) == len(set(names))
    count = 3 * len(attributions) * len(ATTRIBUTION_CHECKS) + 3 * len(syntheses) * len(SYNTHESIS_CHECKS)
    count += len(renderers) * len(RENDERER_CHECKS) + len(metrics) * len(METRIC_CHECKS)
    assert len(found) == count + len(backends) * len(BACKEND_CHECKS)
    assert "grad_cam-volumes-explains_the_target" in names
    assert "overlay-refuses_nan" in names
    assert checks("CNNviz")[0].__name__ == names[0]


@pytest.mark.usefixtures("_registered")
def test_what_is_right_passes_and_what_is_wrong_fails() -> None:
    outcomes = {}
    for check in checks("this process", {"right_slopes": [{"rank": 1}, {"rank": 2, "scale": 2.0}]}):
        try:
            check()
            outcomes[check.__name__] = ""
        except AssertionError as error:
            outcomes[check.__name__] = str(error)
    right = {name: said for name, said in outcomes.items() if name.startswith("right_slopes")}
    assert set(right.values()) == {""}
    assert {"right_slopes-signals-0-has_a_page", "right_slopes-images-1-draws_by_the_seed"} <= set(right)
    assert len(right) == 2 * len(ATTRIBUTION_CHECKS)
    assert "one number for each input" in outcomes["wrong_metric-scores_some_inputs"]


@pytest.mark.usefixtures("_registered")
def test_one_kind_and_some_ranks() -> None:
    assert {check.method for check in checks("this process", kind="metric")} == {"wrong_metric"}
    assert len(checks("this process", kind="attribution", ranks=[2])) == len(ATTRIBUTION_CHECKS)


def test_a_package_without_methods_is_refused() -> None:
    with pytest.raises(LookupError, match=r"no method of 'rising-cam' is registered; install the package .* cnnviz"):
        checks("rising-cam")
    with pytest.raises(LookupError, match="there is no kind 'metrics'; choose attribution, synthesis, "):
        checks("cnnviz", kind="metrics")


def test_settings_of_no_method_are_refused() -> None:
    with pytest.raises(LookupError, match="settings are given for grad_cm, which 'cnnviz' does not register"):
        checks("cnnviz", {"grad_cm": {}})


AUTHORS = """import pytest
from cnnviz import attribution, attributions, gradient
from cnnviz.testing import checks

@attribution
def absolute():
    \"\"\"The size of the gradient.\"\"\"
    return abs(gradient())

attributions.register(absolute)

@pytest.mark.parametrize("check", checks("this process", ranks=[2]))
def test_promises(check):
    check()
"""


def test_an_authors_file_has_a_test_for_each_promise(tmp_path: Path) -> None:
    (tmp_path / "test_absolute.py").write_text(AUTHORS)
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    told = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path, check=False).stdout
    for check in ATTRIBUTION_CHECKS:
        assert f"test_promises[absolute-images-{check.__name__}] PASSED" in told
