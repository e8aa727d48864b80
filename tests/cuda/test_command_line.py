"""The command line takes the device by itself, and the CPU where that is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from cnnviz import Explanation, demo
from cnnviz.__main__ import main


@pytest.fixture
def picture(tmp_path: Path) -> str:
    file = tmp_path / "circle.png"
    Image.fromarray(demo.pictures().pictures[0]).save(file)
    return str(file)


def bytes_used(*arguments: str, device: torch.device) -> int:
    """The most bytes of the device that were in use at once, beside what was before."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    assert main(list(arguments)) == 0
    return torch.cuda.max_memory_allocated(device) - before


def test_by_default_it_computes_on_the_device(picture: str, tmp_path: Path, device: torch.device) -> None:
    explain = ["explain", picture, "--method", "gradient", "-o"]
    assert bytes_used(*explain, str(tmp_path / "auto.safetensors"), device=device) > 0
    assert bytes_used(*explain, str(tmp_path / "cpu.safetensors"), "--device", "cpu", device=device) == 0
    auto, cpu = (Explanation.load(tmp_path / f"{name}.safetensors").values.flatten(1) for name in ("auto", "cpu"))
    assert torch.cosine_similarity(auto.double(), cpu.double()).min() >= 1 - 1e-5


def test_devices_are_told(capsys: pytest.CaptureFixture[str], device: torch.device) -> None:
    assert main(["doctor"]) == 0
    assert f"CUDA: {torch.cuda.get_device_name(device)}" in capsys.readouterr().out


def test_a_device_that_is_not_there_is_told(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", picture, "--device", "cuda:77"]) == 2
    assert f"there is no cuda:77: {torch.cuda.device_count()} CUDA devices are found" in capsys.readouterr().err
