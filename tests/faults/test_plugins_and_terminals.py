"""Plugins that end the process while they are imported, and names that would steer a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnviz.cli.inspect import _table
from cnnviz.cli.scores import print_rows
from cnnviz.registry.registry import PluginError, Registry

GROUPS = ("attributions", "metrics", "renderers", "syntheses")
MODULES = {
    "sys.exit": "import sys\nsys.exit(3)\n",
    "sys.exit without a status": "import sys\nsys.exit()\n",
    "SystemExit with words": "raise SystemExit('a licence\\nis missing')\n",
    "GeneratorExit": "raise GeneratorExit\n",
    "an exception of its own": "class Stop(BaseException): pass\nraise Stop('enough')\n",
    "an error": "raise ValueError('two\\nlines')\n",
    "a syntax error": "def\n",
}
NORMAL = "from cnnviz import attribution, gradient\n\n\n@attribution\ndef fine():\n    return gradient()\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Puts a distribution with one module on the path that offers a method of each kind."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(name: str, source: str) -> Path:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        offers = "".join(f"[cnnviz.{group}]\n{name} = {name}_module:{name}\n" for group in GROUPS)
        (info / "entry_points.txt").write_text(offers)
        (tmp_path / f"{name}_module.py").write_text(source)
        return tmp_path

    return put


@pytest.mark.parametrize("case", MODULES)
def test_such_a_plugin_hurts_only_who_asks_for_it(case: str, install: Callable[[str, str], Path]) -> None:
    install("quits", MODULES[case])
    for group in GROUPS:
        registry: Registry[object] = Registry(f"cnnviz.{group}")  # type: ignore[type-var]
        assert "quits" in registry
        with pytest.raises(PluginError, match=r"'quits' from quits 1\.0 does not load: .*Set CNNVIZ_BLOCK=quits"):
            registry["quits"]
        assert list(registry.faults()) == ["quits"]
        neighbour = next(name for name in registry if name != "quits")
        assert registry[neighbour] is not None


def test_an_interruption_while_a_plugin_is_imported_is_one(install: Callable[[str, str], Path]) -> None:
    install("slow", "raise KeyboardInterrupt\n")
    registry: Registry[object] = Registry("cnnviz.attributions")  # type: ignore[type-var]
    with pytest.raises(KeyboardInterrupt):
        registry["slow"]


def test_commands_list_the_others(install: Callable[[str, str], Path]) -> None:
    folder = install("quits", MODULES["sys.exit"])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    command = [sys.executable, "-W", "ignore", "-m", "cnnviz", "methods", "--plain"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows if row[1] == "quits"] == ["attribution", "synthesis", "renderer", "metric"]
    assert all("it raises SystemExit(3) while it is imported" in row[2] for row in rows if row[1] == "quits")
    assert "grad_cam" in [row[1] for row in rows]


# Escapes, a bell, a title, a link, a carriage return, a backspace, eight-bit controls, and reversed writing
ESCAPES = ("\x1b[31mred", "\x1b]0;title\x07", "\x1b]8;;http://a\x1b\\b")
STEERING = (*ESCAPES, "a\rb", "a\bb", "\x9b2J", "\u202eab", "\u2066ab", "a\x00b")


@pytest.mark.parametrize("text", STEERING, ids=ascii)
@pytest.mark.parametrize("plain", [True, False])
def test_names_in_tables_do_not_steer_the_terminal(text: str, plain: bool, capsys: pytest.CaptureFixture[str]) -> None:
    _table(("method", "what it is"), [(text, f"summary {text}")], plain)
    print_rows([{"method": text, "pictures": 1, text: 0.5}])
    written = capsys.readouterr().out
    assert not set(written) & {letter for letter in text if not letter.isprintable()} - {"\r" if plain else ""}
    assert "?" in written or "a b" in written  # what is white space becomes a space where tabs part the columns
