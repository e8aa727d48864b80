"""What ``--target`` and ``--top-classes`` mean, and that no option hides a setting."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from PIL import Image

from cnnviz import Explanation, attributions, demo, metrics, renderers, syntheses
from cnnviz.__main__ import main
from cnnviz.cli.app import app
from cnnviz.cli.targets import read_target

DETECTOR = """
import torch
from torch import nn

class Places(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.maps = nn.Conv2d(3, 3, 16, stride=8)

    def forward(self, x):
        scores = self.maps(x)
        return self.made(scores)

class Segments(Places):
    def made(self, scores):
        return {"out": scores}

class Detects(Places):
    def made(self, scores):
        classes = scores.flatten(2).sigmoid()
        boxes = torch.linspace(8, 40, classes.shape[2]).expand(len(scores), 4, -1)
        return torch.cat([boxes, classes], 1)

class Sigmoid(Places):
    def made(self, scores):
        return (scores.mean((2, 3)) + 3).sigmoid()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a picture, names of three classes, and networks of other kinds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Image.fromarray(demo.pictures().pictures[0]).resize((64, 64)).save("circle.png")
    Path("names.txt").write_text("sky\nperson\ndog\n")
    Path("places_net.py").write_text(DETECTOR)
    sys.modules.pop("places_net", None)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("against:cat,dog", "against('cat', 'dog')"),
        ("against:3,dog", "against(3, 'dog')"),
        ("region:cat", "region('cat')"),
        ("region:2", "region(2)"),
        ("box:3", "box(3)"),
        ("box:person", "box('person')"),
    ],
)
def test_forms_of_targets(text: str, written: str) -> None:
    assert repr(read_target(text)) == written


@pytest.mark.parametrize("text", ["against:cat", "against:", "against:a,b,c", "region:", "box:"])
def test_a_form_that_is_not_whole_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"--target {text} is not whole; it is a class, or higher"):
        read_target(text)


@pytest.mark.parametrize(
    ("net", "target", "title"),
    [
        ("Segments", "region:dog", "region('dog')"),
        ("Segments", "region:1", "region(1)"),
        ("Detects", "box:0", "box(0)"),
        ("Detects", "box:person", "box('person')"),
        ("Sigmoid", "against:sky,dog", "against('sky', 'dog')"),
    ],
)
def test_other_networks_are_asked(here: Path, capsys: Any, net: str, target: str, title: str) -> None:
    how = ["--model", f"places_net:{net}", "--trust-model", "--categories", "names.txt", "--size", "64"]
    assert main(["explain", "circle.png", "--target", target, "--method", "gradient", *how, "-o", "x.safetensors"]) == 0
    assert capsys.readouterr().out.startswith(f"x.safetensors: {title} ")


def test_what_goes_into_a_sigmoid_is_explained(here: Path, capsys: Any) -> None:
    how = [
        "--model",
        "places_net:Sigmoid",
        "--trust-model",
        "--size",
        "64",
        "--method",
        "gradient",
        "-o",
        "x.safetensors",
    ]
    assert main(["explain", "circle.png", "--before-sigmoid", *how]) == 0
    kept = Explanation.load("x.safetensors")
    assert float(kept.score) > 1
    torch.testing.assert_close(kept.probability, kept.score.sigmoid())
    assert capsys.readouterr().out.rstrip().endswith("%)")


def test_top_classes_are_written_by_rank(here: Path, capsys: Any) -> None:
    assert main(["explain", "circle.png", "--top-classes", "3", "--method", "grad_cam,gradient", "-o", "maps/"]) == 0
    names = [f"circle_{method}_{rank}.png" for method in ("grad_cam", "gradient") for rank in (1, 2, 3)]
    assert sorted(path.name for path in Path("maps").iterdir()) == sorted(names)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 6
    # before the probability, such as "9.93 (100 %)"
    scores = [float(line.partition(" (")[0].rpartition(" ")[2]) for line in told if "grad_cam" in line]
    assert scores == sorted(scores, reverse=True)
    assert main(["explain", "circle.png", "--top-classes", "3", "-o", "grid.png"]) == 0
    assert main(["explain", "circle.png", "--top-classes", "2", "-o", "x.safetensors"]) != 0
    assert main(["explain", "circle.png", "--top-classes", "2", "--target", "1"]) != 0
    assert main(["explain", "circle.png", "--top-classes", "2000"]) != 0
    errors = capsys.readouterr().err
    assert "keeps the values of one method, and 2 were asked for" in errors
    assert "--target names what is explained and --top-classes chooses classes; say one of them" in errors
    assert "the top 2000 classes are asked for, and the model has" in errors


PASSED_ON = {"layer", "of", "target"}
"""Options that a command declares and hands on as settings of that name; a target is no setting there."""
OWN = {
    "project": {"channels", "channel", "top"},  # handed to the method, too
    # what it asks; the settings of that name are of projections, which ask for channels of their own and are not drawn
    "excite": {"channels", "channel", "count", "by", "top"},
    "synthesize": {"channel", "count"},  # several channels are several jobs
}
SETTINGS = {
    "synthesize": (syntheses,),
    "invert": (syntheses,),
    "evaluate": (attributions, metrics),
}


@pytest.mark.parametrize(
    "command", ["explain", "confusion", "confusions", "classic", "project", "excite", *SETTINGS, "segment"]
)
def test_no_option_has_the_name_of_a_setting(command: str) -> None:
    """It would take the word away from the method or renderer that is asked for."""
    declared = {
        name.lstrip("-").replace("-", "_")
        for parameter in typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
        for name in parameter.opts
        if name.startswith("--")
    }
    for registry in SETTINGS.get(command, (attributions, renderers)):
        for name in registry:  # type: ignore[attr-defined]
            hidden = declared & set(registry[name].settings) - PASSED_ON - OWN.get(command, set())  # type: ignore[index]
            assert not hidden, f"{command} hides {hidden} of {name}"


def test_the_number_of_masks_reaches_rise(here: Path, capsys: Any) -> None:
    Path("masks").mkdir()
    Image.new("L", (64, 64), 255).save("masks/circle.png")
    how = ["--method", "rise", "--masks", "4", "--cells", "2", "--metric", "mass_inside"]
    assert main(["evaluate", "circle.png", "--annotations", "masks", *how]) == 0
    assert "1.000" in capsys.readouterr().out
