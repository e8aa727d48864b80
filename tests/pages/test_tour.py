"""The notebook of the documentation runs from its first cell to its last, and shows what it is kept with."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

TOUR = Path(__file__).parents[2] / "docs" / "notebooks" / "tour.ipynb"


def kinds(notebook: Any) -> list[list[set[str]]]:
    """For each cell the kinds of what it shows."""
    return [[set(output.get("data", {})) for output in cell.get("outputs", [])] for cell in notebook["cells"]]


def test_the_tour_is_kept_with_what_it_shows() -> None:
    notebook = json.loads(TOUR.read_text())
    assert TOUR.stat().st_size < 1_000_000
    for cell in notebook["cells"]:
        outputs = cell.get("outputs", [])
        assert len(outputs) == (cell["cell_type"] == "code"), (
            "the last line of each cell shows itself, and nothing else"
        )
        assert all(output["output_type"] == "execute_result" for output in outputs)
        assert all({"text/html", "text/plain"} <= set(output["data"]) for output in outputs)
    assert "can't be drawn" not in TOUR.read_text()
    assert "/tmp" not in TOUR.read_text()


def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install -e '.[test]'")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install -e '.[test]'")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: pip install -e '.[test]'")
    for place in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(place, str(tmp_path))  # nothing is read or written at home
    kept = nbformat.read(TOUR, as_version=4)
    fresh = copy.deepcopy(kept)
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that talk to the kernel
        nbclient.NotebookClient(
            fresh, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
        ).execute()
    assert kinds(fresh) == kinds(kept)
    html = "".join(output["data"]["text/html"] for cell in fresh.cells for output in cell.get("outputs", []))
    assert "can't be drawn" not in html
    assert "not drawn" not in html
