"""What doctor tells of packages that are installed: misspelt names, and what they do while they are imported."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType

import pytest

import cnnviz
from cnnviz import hookimpl
from cnnviz.registry import import_watch
from cnnviz.registry.registry import Registry

RUDE = """
import os
import random
import sys
import warnings

import numpy as np
import torch

print("hello from rude")
torch.manual_seed(0)
np.random.seed(0)
random.seed(0)
torch.set_default_dtype(torch.float64)
torch.set_default_device("meta")
torch.set_num_threads(torch.get_num_threads() + 1)
torch.autograd.set_detect_anomaly(True)
np.seterr(all="ignore")
os.chdir("/")
sys.setrecursionlimit(sys.getrecursionlimit() + 1)
sys.excepthook = print
warnings.simplefilter("ignore")

from cnnviz import attribution, gradient


@attribution
def rude():
    return gradient()
"""
LEAVES = "import sys\nsys.exit(3)\n"


def offered(site: Path, name: str, group: str, source: str) -> None:
    """An installed package of one module that offers one entry point."""
    (site / f"{name}.py").write_text(source)
    info = site / f"{name}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {name}:{name}\n")


def test_doctor_tells_what_plugins_do_and_puts_it_back(tmp_path: Path) -> None:
    offered(tmp_path, "rude", "cnnviz.attributions", RUDE)
    offered(tmp_path, "leaves", "cnnviz.metrics", LEAVES)
    offered(tmp_path, "unread", "cnnviz.rules", "")
    offered(tmp_path, "near", "cnnviz.renderer", "")
    code = (
        "import os, sys, warnings, numpy as np, torch, cnnviz\n"
        "from cnnviz.__main__ import main\n"
        "before = torch.get_rng_state(), torch.get_default_dtype(), list(warnings.filters)\n"
        "def shared():\n"
        "    return (torch.get_default_device(), torch.get_num_threads(), torch.is_anomaly_enabled(), np.geterr(),\n"
        "            os.getcwd(), sys.getrecursionlimit(), sys.excepthook)\n"
        "more = shared()\n"
        "assert main(['doctor']) == 1\n"
        "assert torch.equal(before[0], torch.get_rng_state())\n"
        "assert before[1:] == (torch.get_default_dtype(), list(warnings.filters))\n"
        "assert more == shared()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(("fault:", "remark:"))]
    assert "'leaves' from leaves 0.1 does not load: it raises SystemExit(3) while it is imported." in lines[0]
    assert lines[1:] == [
        "remark: near 0.1: there is no group 'cnnviz.renderer' of entry points, and nothing reads it;"
        " did you mean cnnviz.renderers?",
        "remark: unread 0.1: there is no group 'cnnviz.rules' of entry points, and nothing reads it;"
        " there are cnnviz.attributions, cnnviz.syntheses, cnnviz.renderers, cnnviz.metrics, cnnviz.backends",
        "remark: rude 0.1: it prints 'hello from rude' while it is imported",
        "remark: rude 0.1: it draws or seeds torch's random numbers while it is imported",
        "remark: rude 0.1: it draws or seeds Python's random numbers while it is imported",
        "remark: rude 0.1: it draws or seeds numpy's random numbers while it is imported",
        "remark: rude 0.1: it changes the default dtype of torch while it is imported",
        "remark: rude 0.1: it changes the default device of torch while it is imported",
        "remark: rude 0.1: it changes the number of torch's threads while it is imported",
        "remark: rude 0.1: it changes whether torch looks for anomalies while it is imported",
        "remark: rude 0.1: it changes what numpy does on errors while it is imported",
        "remark: rude 0.1: it changes the working folder while it is imported",
        "remark: rude 0.1: it changes how deep Python calls while it is imported",
        "remark: rude 0.1: it changes how Python shows errors while it is imported",
        "remark: rude 0.1: it changes the filters of warnings while it is imported",
    ]


@pytest.mark.parametrize(
    ("group", "hint"),
    [
        ("cnnviz", "there are cnnviz.attributions, cnnviz.metrics"),
        ("cnnviz_attributions", "did you mean cnnviz.attributions?"),
        ("CNNViz.Metrics", "did you mean cnnviz.metrics?"),
        ("cnviz.attribution", "did you mean cnnviz.attributions?"),
        ("cnnvizard.themes", None),
        ("pytest11", None),
    ],
)
def test_groups_in_other_spellings_are_told(monkeypatch: pytest.MonkeyPatch, group: str, hint: str | None) -> None:
    entries = EntryPoints([EntryPoint("x", "x:x", group), EntryPoint("y", "y:y", "cnnviz.metrics")])
    monkeypatch.setattr(import_watch, "entry_points", lambda **chosen: entries.select(**chosen))
    monkeypatch.setattr(import_watch, "origin_of", lambda entry: f"{entry.name} 0.1")
    told = import_watch.unknown_groups(["cnnviz.attributions", "cnnviz.metrics"])
    line = f"there is no group {group!r} of entry points, and nothing reads it; {hint}"
    assert told == ([] if hint is None else [("x 0.1", line)])


def test_a_misspelt_hook_is_named() -> None:
    plugin = ModuleType("family")

    @hookimpl
    def cnnviz_regsiter(registry: Registry[object]) -> None:
        """Never called."""

    plugin.cnnviz_regsiter = cnnviz_regsiter  # type: ignore[attr-defined]  # a module that is written here
    with pytest.raises(TypeError, match="cnnviz_regsiter is no hook, and nobody calls it; the hook is cnnviz_register"):
        cnnviz.attributions.register(plugin, "family")
