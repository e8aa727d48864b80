"""Workers on a Ray cluster: what is refused before anything starts, and a backend's promises where Ray is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import cnnviz
from cnnviz.datasets import Done, Failed, Lost, Ready, RunError, Task
from cnnviz.demo.drawing import draw
from cnnviz.testing import Check, Drill, checks

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


def cluster(*nodes: dict[str, float], free: dict[str, float] | None = None) -> Any:
    """What a Ray session with such machines says of itself; nothing can be started on it."""
    total: dict[str, float] = {}
    for node in nodes:
        for name, amount in node.items():
            total[name] = total.get(name, 0) + amount
    return SimpleNamespace(
        is_initialized=lambda: True,
        get_runtime_context=lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"),
        nodes=lambda: [{"Alive": True, "Resources": node} for node in nodes] + [{"Alive": False, "Resources": {}}],
        available_resources=lambda: total if free is None else free,
        cloudpickle=SimpleNamespace(dumps=lambda job: b""),
    )


def refusal(monkeypatch: pytest.MonkeyPatch, library: Any, job: Any = None, **settings: Any) -> str:
    monkeypatch.setitem(sys.modules, "ray", library)
    monkeypatch.setattr("cnnviz_plugins.backends.ray_cluster.SETTLED", 0.0)
    with pytest.raises(ValueError, match=r".") as raised:
        cnnviz.backends["ray"](**settings)(job or Drill("nowhere"))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_more_than_the_cluster_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would wait for it without a word. A worker does not lie on two machines."""
    assert refusal(monkeypatch, cluster({"CPU": 2}), workers=3) == (
        "there is no room for 3 workers with 1 CPU each: the cluster has 2 CPU, 0 GPU on 1 machine; "
        "ask for at most 2 workers, or add machines"
    )
    two = cluster({"CPU": 3}, {"CPU": 3.0})
    assert "ask for at most 2 workers" in refusal(monkeypatch, two, workers=3, cpus=2)
    assert "no room for 1 workers with 4 CPU each" in refusal(monkeypatch, two, cpus=4)
    cuda = Drill("nowhere", device="cuda")
    assert "with 1 CPU and 1 GPU each: the cluster has 6 CPU, 0 GPU on 2 machines" in refusal(monkeypatch, two, cuda)
    assert "at most 3 workers" in refusal(monkeypatch, cluster({"CPU": 8, "GPU": 1.5}), cuda, workers=4, gpus=0.5)


def test_what_others_have_taken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = cluster({"CPU": 4}, free={"CPU": 1.0})
    assert "1 CPU, 0 GPU are free; wait for other work on it" in refusal(monkeypatch, busy, workers=2)
    assert "0 CPU, 0 GPU are free" in refusal(monkeypatch, cluster({"CPU": 4}, free={}))


def test_settings_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = cnnviz.backends["ray"]
    with pytest.raises(ValueError, match=r"workers=0 can't be; say 1 or more"):
        ray(workers=0)
    with pytest.raises(ValueError, match=r"cpus=-1 can't be; say 0 or more"):
        ray(cpus=-1)
    with pytest.raises(ValueError, match=r"gpus=nan can't be; say 0 or more"):
        ray(gpus=float("nan"))
    cuda = Drill("nowhere", device="cuda")
    assert "gpus=0 can't be where the run is computed on GPUs" in refusal(monkeypatch, cluster({}), cuda, gpus=0)


def test_an_address_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray waits for minutes there. A session of this process is not left for another."""
    outside = cluster({"CPU": 2})
    outside.is_initialized = lambda: False
    assert "nothing answers at 127.0.0.1:1 (" in refusal(monkeypatch, outside, address="127.0.0.1:1")
    assert "address='somewhere' is none; say 'auto' or host:port" in refusal(monkeypatch, outside, address="somewhere")
    assert "address='ray://10.0.0.1:10001' is none" in refusal(monkeypatch, outside, address="ray://10.0.0.1:10001")
    other = refusal(monkeypatch, cluster({"CPU": 2}), address="10.0.0.2:6379")
    assert "connected to Ray at 10.0.0.1:6379 already, not to 10.0.0.2:6379; leave address out" in other


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"Ray can't be imported .* install it: pip install 'cnnviz\[ray\]'"):
        cnnviz.backends["ray"]()(Drill("nowhere"))


@pytest.fixture(scope="module")
def _session() -> Iterator[None]:
    """A session of this process, which every test finds and leaves; starting Ray takes seconds."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    assert ray.is_initialized(), "a backend has ended the session that it found"
    ray.shutdown()


@needs_ray
@pytest.mark.usefixtures("_session")
@pytest.mark.parametrize("check", [check for check in checks("cnnviz", kind="backend") if check.method == "ray"])
def test_promise(check: Check) -> None:
    check()


@needs_ray
@pytest.mark.usefixtures("_session")
def test_workers_that_have_other_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(package: str, version: str) -> str:
        monkeypatch.setattr("cnnviz_plugins.backends.ray_cluster.SAME", (package,))
        monkeypatch.setattr("cnnviz_plugins.backends.ray_cluster.version", lambda _: version)
        workers: Any = cnnviz.backends["ray"](workers=1)(Drill(str(tmp_path)))
        workers.submit(Task(0))
        with pytest.raises(RunError) as raised:
            list(workers.events())
        return str(raised.value)

    assert "has no package no-such-package; install no-such-package 1.2" in said("no-such-package", "1.2")
    other = said("numpy", "9.9")
    assert "has numpy " in other
    assert "and this process has 9.9; install one version everywhere" in other


@needs_ray
@pytest.mark.usefixtures("_session")
def test_losses_are_told_in_one_line(tmp_path: Path) -> None:
    workers: Any = cnnviz.backends["ray"](workers=1)(Drill(str(tmp_path), {0: "kill"}))
    workers.submit(Task(0))
    workers.submit(Task(1))
    events = list(workers.events())
    workers.stop()
    assert [type(event) for event in events] == [Ready, Lost, Ready, Done]
    assert events[1].reason.endswith(" was lost: its worker process has died")
    assert not any(isinstance(event, Failed) for event in events)


@needs_ray
@pytest.mark.usefixtures("_session")
def test_a_run_that_was_begun_here_is_ended_on_a_cluster_with_the_same_bytes(tmp_path: Path) -> None:
    for number, picture in enumerate(draw(6, seed=3).pictures):
        Image.fromarray(picture).resize((24, 24)).save(tmp_path / f"{number}.png")
    model, asked = cnnviz.load_model("demo"), {"methods": ["grad_cam", "smoothgrad"], "samples": 2, "shard_size": 2}

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    cnnviz.batch(model, tmp_path, out=tmp_path / "here", workers=0, **asked)
    with pytest.raises(KeyboardInterrupt):
        cnnviz.batch(model, tmp_path, out=tmp_path / "there", workers=0, progress=interrupt, **asked)
    begun = sorted(path.name for path in (tmp_path / "there").glob("shards/*"))
    assert begun == ["000000.safetensors"]
    ended = cnnviz.batch(model, tmp_path, out=tmp_path / "there", backend="ray", workers=2, **asked)
    assert len(ended.answered) == 6
    for path in (tmp_path / "here").glob("shards/*"):
        assert path.read_bytes() == (tmp_path / "there" / "shards" / path.name).read_bytes()
