"""Checkpoints on the command line: what was taken out of a file is said once, on stderr."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cnnviz import demo
from cnnviz.__main__ import main


def said(capsys: pytest.CaptureFixture[str], *args: str | Path, status: int = 0) -> tuple[str, list[str]]:
    """What the command prints on stdout, and its lines on stderr."""
    assert main([str(arg) for arg in args]) == status
    told = capsys.readouterr()
    return told.out, told.err.splitlines()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a checkpoint of five classes in two sets of weights."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.fromarray(demo.pictures().pictures[0]).save("a.png")
    torch.manual_seed(0)
    raw, averaged = demo.untrained("demo", 5).state_dict(), demo.untrained("demo", 5).state_dict()
    torch.save({"model": raw, "model_ema": averaged, "epoch": 3}, "tuned.pth")
    torch.save({f"net.{name}": tensor for name, tensor in raw.items()}, "lightning.ckpt")
    return tmp_path


def test_what_was_taken_is_said_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, told = said(capsys, "explain", "a.png", "--weights", "tuned.pth", "-o", "x.png")
    assert "x.png: class " in out  # the demo network's names are not those of the file
    assert told == [
        "cnnviz: weights 'tuned.pth': key 'model_ema' is taken; key 'model' would fit too (--key and --prefix choose)",
        "cnnviz: weights 'tuned.pth' have 5 outputs where DemoNet has 8, so it is made with 5 classes "
        "(--categories names them)",
    ]
    assert said(capsys, "explain", "a.png", "--weights", "tuned.pth", "-o", "y.png", "--quiet") == ("", [])


def test_options_choose(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "names.txt").write_text("a\nb\nc\nd\ne\n")
    words = ("--weights", "tuned.pth", "--num-classes", "5", "--key", "model", "--categories", "names.txt")
    out, told = said(capsys, "explain", "a.png", *words, "-o", "x.png")
    assert out.startswith("x.png: ")
    assert out.split()[1] in "abcde"
    assert told == ["cnnviz: weights 'tuned.pth': key 'model' is taken"]
    out, told = said(capsys, "layers", "demo", "--weights", "lightning.ckpt", "--prefix", "net", "--plain")
    assert "fc\tLinear\t5\t" in out
    assert told[0] == "cnnviz: weights 'lightning.ckpt': prefix 'net.' is taken"
    out, told = said(capsys, "layers", "squeezenet1_1", "--num-classes", "6", "--plain")
    assert "classifier.1\tConv2d\t6x13x13\t" in out
    assert told == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--weights", "tuned.pth", "--num-classes", "6"),
            "have 5 outputs, and num_classes is 6; leave num_classes out",
        ),
        (("--num-classes", "6"), "model 'demo' has 8 outputs, and num_classes is 6"),
        (("--num-classes", "0"), "(cnnviz explain --help tells more)"),
        (("--weights", "tuned.pth", "--key", "modle"), "have no key 'modle'; did you mean 'model'?"),
        (("--weights", "tuned.pth", "--prefix", "net"), "have no names with the prefix 'net'"),
        (("--key", "model"), "choose in a file of weights; name one"),
    ],
)
def test_wrong_choices_end_in_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    out, told = said(capsys, "explain", "a.png", *words, "-o", "x.png", status=2)
    assert (out, len(told)) == ("", 1)
    assert message in told[0]
    assert not (here / "x.png").exists()
