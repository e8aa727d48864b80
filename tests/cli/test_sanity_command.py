"""The command sanity: a verdict and a table of any method, in Markdown and JSON; what it can't do is one line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from torch import Tensor

import cnnviz
from cnnviz import demo
from cnnviz.__main__ import main
from cnnviz.cli import sanity
from cnnviz.testing.sanity import cases


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pictures, and no part but those that are quick."""
    monkeypatch.setattr(sanity, "MOST", {False: (2, 1e-9), True: (2, 1e-9)})
    monkeypatch.setattr(cases, "DRAWN", {"object": "demo", "labels": "demo"})


def test_a_page_has_the_verdict_the_figures_and_the_rules(
    quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "sanity.md"
    assert main(["sanity", "--method", "gradient,gradient() * 2", "-o", str(place)]) == 0
    said = capsys.readouterr()
    text = place.read_text()
    assert said.out == text
    assert "| gradient | not above the blind maps at the object |" in text
    assert "| gradient() * 2 |" in text
    assert "| (edges) |" in text
    assert "*depends on the weights*: none of these three." in text
    assert "object of demo, 2 pictures" in text
    assert "rows; each ends with the pictures that are under way after" in said.err
    assert main(["sanity", "--method", "gradient", "-o", str(place)]) == 2
    assert "sanity.md is there already; --overwrite replaces it" in capsys.readouterr().err
    assert place.read_text() == text


def test_json_has_the_same_and_tells_what_is_left_out(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sanity", "--method", "gradient,activation", "--json"]) == 1
    said = capsys.readouterr()
    told = json.loads(said.out)
    first, second = told["methods"]
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
    shown = json.loads(
        next(each for each in re.findall(r"^```json\n(.*?)^```$", page, re.M | re.S) if "sanity" in each)
    )
    assert told.keys() == shown.keys()
    assert first.keys() == shown["methods"][0].keys()
    assert first["parts"][0].keys() == shown["methods"][0]["parts"][0].keys()
    assert told["blind"][0].keys() == shown["blind"][0].keys()
    assert (first["method"], first["left_out"], second["parts"]) == ("gradient", [], [])
    assert 0 <= first["figures"]["roc_auc"] <= 1
    assert "which are no one map" in second["left_out"][0]["reason"]
    assert [each["map"] for each in told["blind"]] == ["random", "centre blob", "edges"]
    assert "activation, object of demo: left out:" in said.err


def test_an_own_network_is_asked_about_own_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(demo.pictures().pictures[0]).save(tmp_path / "one.png")
    own = ["--model", "demo-shortcut", "--pictures", str(tmp_path)]
    assert main(["sanity", "--method", "gradient", *own, "--seconds", "0.001", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["methods"]
    assert [(each["part"], each["network"], each["pictures"]) for each in row["parts"]] == [
        ("weights", "demo-shortcut", 1),
        ("photographs", "demo-shortcut", 1),
    ]
    assert set(row["figures"]) == {"output", "quarter", "all", "insertion", "deletion", "road", "max_sensitivity"}


def test_methods_of_attention_are_asked_of_the_bundled_transformer(
    quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cases, "ATTENDING", {"object": demo.TRANSFORMER})
    assert main(["sanity", "--method", "grad_sam", "--model", "demo-transformer", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(each["part"], each["network"]) for each in told["methods"][0]["parts"]] == [("object", "demo-transformer")]
    assert told["command"] == "cnnviz sanity --method grad_sam --model demo-transformer"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--method", "gradd_cam"], "there is no attribution 'gradd_cam'"),
        (["--method", "gradient", "cat.jpg"], "sanity takes no 'cat.jpg'; name pictures with --pictures"),
        (["--method", "gradient", "--model", "demo-shortcut"], "is asked about pictures of its own; give --pictures"),
        (["--method", "gradient", "-o", "sanity.txt"], "sanity.txt has no suffix of a page; use .md or .json"),
        (["--method", "gradient", "--seconds", "0"], "--seconds 0 is no time; give a number above 0"),
    ],
)
def test_what_cannot_be_done_is_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sanity", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_method_that_leaves_python_is_left_out_here_and_an_error_elsewhere(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A quiet exit with status 0 would look as if all were done."""

    @cnnviz.attribution
    def quits() -> Callable[[cnnviz.Run], Tensor]:
        def leave(run: cnnviz.Run) -> Tensor:
            sys.exit(0)

        return leave

    monkeypatch.setitem(cnnviz.attributions._methods, "quits", quits)
    assert main(["sanity", "--method", "quits,gradient", "--quiet"]) == 1
    assert "cnnviz: quits, object of demo: left out: SystemExit: 0\n" in capsys.readouterr().err
    picture = tmp_path / "star.png"
    Image.fromarray(demo.pictures().pictures[0]).save(picture)
    assert main(["explain", str(picture), "--method", "quits", "-o", str(tmp_path / "map.png")]) == 2
    assert capsys.readouterr().err.endswith(
        "cnnviz: a plugin or a model left Python by SystemExit(0); it has to raise another error\n"
    )
    assert not (tmp_path / "map.png").exists()
