"""What several tests ask about: networks of few weights for every rank, and trained ones with photographs."""

from __future__ import annotations

import gc
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import AveragingNet, FlatteningNet, tiny_inputs
from PIL import Image
from torch import Tensor, nn

from cnnviz import demo
from cnnviz.engine import device_policy
from cnnviz.images.preprocessing import IMAGENET
from cnnviz.incremental.evaluator import Evaluator

# networks of a few weights lose more to handing work between threads than they win; subprocesses inherit it
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

ASSETS = Path(os.environ.get("CNNVIZ_ASSETS") or Path(__file__).parents[2] / "shared" / "assets")


@pytest.fixture(scope="session", autouse=True)
def _without_devices() -> Iterator[None]:
    """Only tests/cuda sees a CUDA device; elsewhere the command line, too, computes the CPU's numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.cuda, "device_count", lambda: 0)
        patch.setattr(torch.backends.mps, "is_available", lambda: False)
        yield


@pytest.fixture(autouse=True)
def _regions_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole passes are faster for networks as small as those of the tests, and regions would hardly be tested."""
    monkeypatch.setattr(device_policy, "CPU", replace(device_policy.CPU, costs=None))


@pytest.fixture(params=(1, 2, 3), ids=("signal", "image", "volume"))
def rank(request: pytest.FixtureRequest) -> int:
    rank: int = request.param
    return rank


@pytest.fixture
def inputs(rank: int) -> Tensor:
    return tiny_inputs(rank)


@pytest.fixture
def averaging_net(rank: int) -> AveragingNet:
    return AveragingNet(rank)


@pytest.fixture
def flattening_net(rank: int) -> FlatteningNet:
    return FlatteningNet(rank)


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of trained weights and photographs."""
    if not ASSETS.is_dir():
        pytest.skip(f"trained weights and photographs are not at {ASSETS}; set CNNVIZ_ASSETS to their folder")
    return ASSETS


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three drawn pictures: circle.png, square.png, triangle.png."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, picture in zip(demo.CATEGORIES[:3], demo.pictures().pictures, strict=False):
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="session")
def squeezenet(assets: Path) -> nn.Module:
    return trained("squeezenet1_0", assets / "models" / "squeezenet1_0-imagenet.pth")


@pytest.fixture(scope="session")
def mobilenet(assets: Path) -> nn.Module:
    return trained("mobilenet_v2", assets / "models" / "mobilenet_v2-imagenet-fp16.pth")


@pytest.fixture(scope="session")
def photographs(assets: Path) -> Tensor:
    """A snake (class 56) and a dog (243), (2, 3, 112, 112), normalized as ImageNet."""
    prepare = replace(IMAGENET, resize=112, crop=(112, 112))
    files = [assets / "images" / "seed" / f"{name}.png" for name in ("snake", "cat_dog")]
    return torch.stack([prepare(Image.open(file).convert("RGB")) for file in files])


def trained(name: str, weights: Path) -> nn.Module:
    from torchvision import models

    model: nn.Module = models.get_model(name, weights=None)
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


@pytest.fixture
def evaluators(monkeypatch: pytest.MonkeyPatch) -> list[Evaluator]:
    """Every evaluator that the test's questions make."""
    made: list[Evaluator] = []
    begin = Evaluator.__init__

    def remember(self: Evaluator, *args: Any, **settings: Any) -> None:
        begin(self, *args, **settings)
        made.append(self)

    monkeypatch.setattr(Evaluator, "__init__", remember)
    return made


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many situations of tests/faults were survived, and how many answers were asked in them."""
    asked: dict[str, list[bool]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, situation in getattr(report, "user_properties", []):
                if name == "situation":
                    asked.setdefault(f"{report.fspath} {situation}", []).append(outcome == "passed")
    if asked:
        answers = [survived for each in asked.values() for survived in each]
        terminalreporter.write_line(
            f"faults: survived {sum(map(all, asked.values()))} of {len(asked)} situations, "
            f"{sum(answers)} of {len(answers)} answers"
        )


CROSSED = (
    *("tests/faults/", "tests/promises/test_faults.py", "tests/testing/test_registered.py"),
    "tests/explanations/test_prepared_methods.py",
)
"""Files that ask every method in every situation, of which one pair in so many is asked."""
SHARE = 96
ASKED_OF_ALL = (
    *("tests/promises/test_ranks.py", "tests/promises/test_peers.py", "tests/run/test_one_logit.py"),
    *("tests/run/test_target_objects.py", "tests/run/test_targets.py", "tests/run/test_targets_of_batches.py"),
    *("tests/explanations/test_black_box.py", "tests/explanations/test_inputs.py"),
)
"""Files that ask every method about a few things, of which one in so many is asked."""
SHARE_OF_ALL = 12
SLOW = (
    "tests/incremental/test_random_networks.py",
    "tests/incremental/test_windows.py::test_scores_of_boxes_are_those_of_whole_passes",
    "tests/incremental/test_windows.py::test_far_less_is_computed_than_whole_passes_would",
    "tests/engine/test_layers.py::test_the_last_spatial_layer_of_known_networks",
)
"""Tests of few cases that take seconds each, of which one in so many is asked, as of tests with many cases."""
MANY, SHARE_OF_MANY = 12, 3


@pytest.fixture(scope="module", autouse=True)
def _garbage_of_others() -> None:
    """A million objects of libraries and collected tests stay: a collection looks at what the file's tests made."""
    gc.collect()
    gc.freeze()


SAME_WITH_ANY_TORCH = (
    *("benchmarks", "cli", "cuda", "demo", "drawing", "images", "pages", "registry"),
    *("promises/test_docs.py", "promises/test_docstrings.py", "promises/test_imports.py"),
    *("promises/test_pages.py", "promises/test_coming_from.py", "promises/test_examples.py"),
    *("plugins/test_figures.py", "plugins/test_renderers.py", "tasks/test_confusion_matrix.py"),
    *("testing/test_checks.py", "testing/test_renderer_checks.py", "testing/test_synthesis_checks.py"),
    *("testing/test_attribution_checks.py", "testing/test_metric_checks.py", "faults/test_plugins_and_terminals.py"),
)
"""Folders and files of tests about text, commands, drawing, files, registration and broken methods.

They meet torch in calls that the other tests make too.
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-situations", action="store_true", help="ask every method in every situation; slow")
    parser.addoption("--of-torch", action="store_true", help="leave out tests that no version of torch changes")
    parser.addoption("--share", type=int, default=1, help="ask a fixed one in so many of the tests")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if not config.getoption("--of-torch"):
        return None
    tests = Path(__file__).parent
    return True if collection_path in {tests / name for name in SAME_WITH_ANY_TORCH} else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the thousands of pairs of a situation and a method a fixed share is asked, unless all are wanted.

    Each situation meets many methods, and each method many situations. Files or tests that are named are asked whole.
    """
    named = any("::" in arg or arg.endswith(".py") for arg in config.args)
    whole = named or config.getoption("--all-situations")
    cases = Counter(item.nodeid.partition("[")[0] for item in items)

    def is_left_out(item: pytest.Item) -> bool:
        share: int = config.getoption("--share")
        if "[" in item.nodeid and not whole:
            share *= SHARE if item.nodeid.startswith(CROSSED) else 1
            share *= SHARE_OF_ALL if item.nodeid.startswith(ASKED_OF_ALL) else 1
            name = item.nodeid.partition("[")[0]
            elsewhere = name.startswith((*CROSSED, *ASKED_OF_ALL, "tests/promises/test_docs.py"))
            alone = not elsewhere and config.getoption("--share") == 1
            share *= SHARE_OF_MANY if alone and (cases[name] >= MANY or name.startswith(SLOW)) else 1
        return zlib.crc32(item.nodeid.encode()) % share != 0

    left_out = [*filter(is_left_out, items)]
    config.hook.pytest_deselected(items=left_out)
    known = set(map(id, left_out))
    items[:] = [item for item in items if id(item) not in known]
