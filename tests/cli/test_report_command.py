"""The command that writes a report: what it explains by default, what it tells, what it refuses."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_pages import data_of, maps_of

from cnnviz import demo, explain, load_model, parse_formula
from cnnviz.__main__ import main
from cnnviz.cli.demo import NEXT
from cnnviz.pages.shared.texts import shown
from cnnviz.targets import top
from cnnviz.testing.sanity.on_model import check_on_model

QUICK = ("--no-verdict", "--method", "grad_cam,gradient")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three pictures, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    drawn = demo.pictures("demo").pictures
    for name, picture in zip(demo.CATEGORIES[:3], drawn, strict=False):
        Image.fromarray(picture).save(f"{name}.png")
    return tmp_path


def ran(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], list[str]]:
    status = main(list(words))
    out, errors = capsys.readouterr()
    return status, out.splitlines(), errors.splitlines()


def page_of(path: str) -> tuple[str, dict[str, Any]]:
    text = Path(path).read_text(encoding="utf-8")
    return text, data_of(text)


def test_the_report_holds_what_explain_gives(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{name}.png" for name in demo.CATEGORIES[:3]]
    assert ran(capsys, "report", *names, *QUICK, "--batch", "2", "-o", "r.html") == (0, ["r.html: 3 of 3 pictures"], [])
    text, data = page_of("r.html")
    assert [row["name"] for row in data["rows"]] == names
    expected = explain(load_model("demo"), names, ["grad_cam", "gradient"], target=top(5))
    for number, row in enumerate(data["rows"]):
        for answers, tile in zip(expected.values(), row["tiles"], strict=True):
            for answer, layers in zip(answers, maps_of(tile), strict=True):
                about, found = layers[0]
                own = answer.values[number].abs().sum(0) if answer.fine else answer.values[number].sum(0)
                step = (about[3] - about[2]) / 255
                assert about[5] == pytest.approx(float(own.abs().max()), rel=1e-4)
                assert np.abs(about[2] + found * step - own.numpy()).max() <= step * 0.51
    assert "cnnviz report circle.png square.png" in text


def test_its_python_gives_the_same_maps(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("report", "circle.png", "--no-verdict", "--method", "grad_cam,smoothgrad", "--relu", "--samples", "2")
    assert ran(capsys, *words, "--seed", "7", "--target", "circle,star", "-o", "one.html")[0] == 0
    text, data = page_of("one.html")
    import html

    (code,) = re.findall(r"<h3>Python</h3>\s*<pre tabindex=\"0\"><code>(.*?)</code>", text, re.S)
    source = html.unescape(code).replace("'one.html'", "'two.html'")
    exec(compile(source, "python of the report", "exec"), {})
    again = page_of("two.html")[1]
    assert [each["name"] for each in again["rows"][0]["classes"]] == ["circle", "star"]
    for one, other in zip(data["rows"][0]["tiles"], again["rows"][0]["tiles"], strict=True):
        for layers, theirs in zip(maps_of(one), maps_of(other), strict=True):
            assert (layers[0][1] == theirs[0][1]).all()


def test_formulas_are_reported_too_with_their_python(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    formula = "guided_backprop() * upsample(grad_cam())"
    assert ran(capsys, "report", "circle.png", "--no-verdict", "-m", formula, "-o", "r.html")[0] == 0
    text, data = page_of("r.html")
    assert [each["name"] for each in data["methods"]] == [formula]
    assert "cnnviz.parse_formula(" in text
    expected = explain(load_model("demo"), "circle.png", parse_formula(formula), target=top(5))
    for answer, layers in zip(expected, maps_of(data["rows"][0]["tiles"][0]), strict=True):
        about, found = layers[0]
        step = (about[3] - about[2]) / 255
        assert np.abs(about[2] + found * step - answer.values[0].abs().sum(0).numpy()).max() <= step * 0.51


def test_the_verdict_is_that_of_the_checks(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("report", "circle.png", "square.png", "--method", "gradient", "--top-classes", "1", "-o", "r.html")
    assert ran(capsys, *words)[0] == 0
    text, _ = page_of("r.html")
    asked = explain(load_model("demo"), ["circle.png", "square.png"], "gradient")
    found = check_on_model(load_model("demo"), asked.inputs, "gradient", target=asked.target)
    words_of = ", ".join(found.sentences) or "no verdict"
    assert f"{words_of[0].upper()}{words_of[1:]}" in text
    assert f"{found.figures['output']:.3g}".replace("-", "\N{MINUS SIGN}") in text
    assert found.untold in text


def test_layers_of_the_slider_are_chosen_named_or_left_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(capsys, "report", "circle.png", *QUICK, "--depth", "2,layer2", "-o", "a.html")[0] == 0
    assert page_of("a.html")[1]["depth"] == ["layer1.0.conv1", "layer2"]
    assert ran(capsys, "report", "circle.png", *QUICK, "--depth", "none", "-o", "b.html")[0] == 0
    assert page_of("b.html")[1]["depth"] == []
    status, _, errors = ran(capsys, "report", "circle.png", *QUICK, "--depth", "layer9", "-o", "c.html")
    assert status == 2
    assert "has no layer 'layer9'" in errors[0]
    assert not Path("c.html").exists()


def test_pictures_that_fail_stand_on_the_page_and_in_the_status(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.png").write_bytes(b"no picture")
    status, said, errors = ran(capsys, "report", "circle.png", "broken.png", "absent.png", *QUICK, "-o", "r.html")
    assert (status, said) == (1, ["r.html: 1 of 3 pictures"])
    assert len(errors) == 2
    text, data = page_of("r.html")
    assert len(data["rows"]) == 1
    assert "Pictures without an explanation" in text
    assert "broken.png" in text
    assert "absent.png" in text
    status, said, errors = ran(capsys, "report", "broken.png", *QUICK, "-o", "s.html")
    assert (status, said, len(errors)) == (2, [], 1)
    assert not Path("s.html").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("circle.png", "-o", "there.html"), "there.html is there already; --overwrite replaces it"),
        (("circle.png", "-o", "r.png"), "r.png has no suffix of a report; use .html"),
        (("circle.png", "-o", "no/r.html"), "the folder no does not exist; make it first"),
        (("circle.png", "--target", "star", "--top-classes", "2"), "say one of them"),
        (("circle.png", "--steps", "3"), "there is no option --steps for grad_cam"),
        (("many", "-o", "r.html"), "a report shows at most 100 pictures, and there are 101"),
    ],
)
def test_what_it_refuses_before_it_works(
    here: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    Path("there.html").write_text("mine")
    if words[0] == "many":
        Path("many").mkdir()
        for number in range(101):
            Image.new("RGB", (2, 2)).save(f"many/{number}.png")
    status, said, errors = ran(capsys, "report", *words, *QUICK)
    assert (status, said) == (2, [])
    assert told in errors[-1]
    assert Path("there.html").read_text() == "mine"
    assert [path.name for path in here.glob("*.html")] == ["there.html"]


def test_a_network_that_gives_a_number_is_explained_without_classes(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("single.py").write_text(
        "import torch\n"
        "def network():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2), torch.nn.ReLU(),\n"
        "        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 1))\n"
    )
    monkeypatch.syspath_prepend(str(here))
    words = ("circle.png", "--model", "single:network", "--size", "32", *QUICK, "-o", "r.html")
    status, _, errors = ran(capsys, "report", *words)
    assert (status, errors) == (0, [])
    assert len(page_of("r.html")[1]["rows"][0]["classes"]) == 1


def test_three_commands_lead_from_the_readme_to_a_report_of_an_own_picture(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first installs, the second is the demonstration, the third is what that prints at its end."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (first,) = re.findall(r"<!-- demo -->\n```sh\n(.*?)\n```", readme, re.S)
    commands = [command.strip() for command in first.split("&&")]
    assert commands[-1].endswith("cnnviz demo")
    printed = NEXT.split()  # at the end of the demonstration, as its own test sees
    assert printed[0] == "cnnviz"
    # the network that comes along takes the place of one that is downloaded
    words = [{"your.jpg": "circle.png", "resnet50": "demo"}.get(word, word) for word in printed[1:]]
    assert ran(capsys, *words)[0] == 0
    data = page_of("mine.html")[1]
    assert [row["name"] for row in data["rows"]] == ["circle.png"]
    assert len(data["rows"][0]["classes"]) == 5


@pytest.mark.parametrize("name", ["caf\udce9.png", "two\nlines \u202eit's.png", "plain name.png"])
def test_its_command_is_text_that_a_shell_reads_back(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of a file whose name is no UTF-8, which no page can hold as it is."""
    Path("circle.png").rename(name)
    words = ["report", name, *QUICK, "--top-classes", "1", "--depth", "none", "-o", "r.html"]
    assert ran(capsys, *words)[0] == 0
    text, data = page_of("r.html")
    assert data["rows"][0]["name"] == shown(name)
    told = re.search(r"<h3>Command</h3>\n<pre[^>]*><code>(.*)</code>", text)
    assert told
    line = html.unescape(told[1])
    assert line.isprintable()
    bash = shutil.which("bash") or pytest.skip("no bash reads it back")
    read = subprocess.run([bash, "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
    assert read.split(b"\0")[:-1] == [os.fsencode(word) for word in ["cnnviz", *words]]
