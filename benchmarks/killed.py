"""A batch run whose workers, parent and disk are taken from it: is every item there once, with the same bytes?

python -m benchmarks.killed --backend local --pictures 2000
python -m benchmarks.killed --backend ray --nodes 2 --pictures 2000
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from benchmarks.markdown import table
from benchmarks.processes import kill_all, parents, wait_until, workers_below
from benchmarks.ray_nodes import Nodes, nodes
from cnnviz import open_batch
from cnnviz.demo.drawing import draw

METHODS = "grad_cam,gradient,smoothgrad"
TOLERANCE = 1e-2
"""Of the peak of a map: what a shard may differ by of which an item was left out."""
LIMIT = 1800.0
"""Seconds that one run may take."""


@dataclass
class Story:
    """What happened to a run, and what is there in the end."""

    name: str
    out: Path
    seconds: float = 0.0
    starts: int = 0
    """How often the command was started."""
    killed: int = 0
    """Workers that were killed."""
    orphans: int = 0
    """Workers that ran on when their parent had been killed."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """The pictures, the command, and the run that nobody disturbed."""

    folder: Path
    count: int
    size: int
    backend: str

    @property
    def shards(self) -> int:
        return -(-self.count // self.size)

    def start(self, story: Story, backend: str | None = None, *more: str) -> subprocess.Popen[str]:
        """The command on the folder of a story, for the first time or again."""
        command = [sys.executable, "-m", "cnnviz", "batch", str(self.folder / "pictures"), str(story.out), "--quiet"]
        command += ["--model", "demo", "--method", METHODS, "--samples", "2", "--shard-size", str(self.size)]
        command += ["--backend", backend or self.backend, "--workers", "2", *more]
        story.starts += 1
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(self, process: subprocess.Popen[str], well: bool = True) -> str:
        """What the command said in the end. Raises RuntimeError where it does not end well, or badly, as expected."""
        said = "".join(process.communicate(timeout=LIMIT)).strip()
        if (process.returncode == 0) != well or process.returncode < 0:
            raise RuntimeError(f"the command ended with {process.returncode}: {said}")
        return said

    def wait_for(self, story: Story, process: subprocess.Popen[str], share: float) -> None:
        """Wait until a share of the shards is there."""
        wanted = max(1, int(self.shards * share))
        if not wait_until(lambda: committed(story.out) >= wanted or process.poll() is not None, LIMIT):
            raise RuntimeError(f"{story.name}: no progress")
        if process.poll() is not None:
            raise RuntimeError(f"{story.name}: ended too early: {self.end(process)}")


def committed(out: Path) -> int:
    """How many shards are there."""
    return len(list(out.glob("shards/*.safetensors")))


def undisturbed(bench: Bench, story: Story) -> None:
    bench.end(bench.start(story))


def a_worker_is_killed(bench: Bench, story: Story) -> None:
    process = bench.start(story)
    for share in (0.2, 0.5):
        bench.wait_for(story, process, share)
        kill_all(workers_below([process.pid])[:1])
        story.killed += 1
    bench.end(process)


def the_parent_is_killed_twice(bench: Bench, story: Story) -> None:
    for share in (0.3, 0.6):
        process = bench.start(story)
        bench.wait_for(story, process, share)
        kill_parent(process, story)
    bench.end(bench.start(story))


def kill_parent(process: subprocess.Popen[str], story: Story) -> None:
    """Kill the command, and look whether its workers end by themselves."""
    below = set(workers_below([process.pid]))
    process.kill()
    process.communicate()
    began = time.monotonic()
    if not wait_until(lambda: not below & parents().keys(), 30):
        story.orphans += len(below & parents().keys())
        kill_all(below)
    story.notes.append(f"its {len(below)} workers were gone {time.monotonic() - began:.1f} s later")


def the_disk_is_full(bench: Bench, story: Story) -> None:
    bytes_of_all = sum(path.stat().st_size for path in (bench.folder / "undisturbed").rglob("*") if path.is_file())
    with small_disk(story.out, bytes_of_all // 2) as enlarge:
        said = bench.end(bench.start(story), well=False)
        story.notes.append(f"stopped at {committed(story.out)} shards: {said}")
        left = list(story.out.rglob("*.tmp"))
        if left:
            raise RuntimeError(f"a full disk leaves {left}")
        enlarge(bytes_of_all * 2)
        bench.end(bench.start(story))
        shutil.copytree(story.out, story.out.with_name("kept"))
    shutil.rmtree(story.out)
    story.out.with_name("kept").rename(story.out)


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Callable[[int], None]]:
    """A disk of so many bytes, which can be enlarged. Raises PermissionError for users that can't have one."""
    place.mkdir()
    if os.geteuid() != 0:
        raise PermissionError("only root can mount a small disk")

    def mount(*options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(place)], check=True)

    mount(f"size={size}")
    try:
        yield lambda larger: mount("remount", f"size={larger}")
    finally:
        subprocess.run(["umount", str(place)], check=True)


def a_picture_kills_its_worker(bench: Bench, story: Story) -> None:
    poison = f"{bench.count * 7 // 20 + 3:05}.png"
    command = [sys.executable, "-m", "benchmarks.poisoned", str(bench.folder / "pictures"), str(story.out)]
    command += ["--backend", bench.backend, "--poison", poison, "--methods", METHODS]
    story.starts += 1
    process = subprocess.Popen(
        [*command, "--shard-size", str(bench.size)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    story.notes.append(bench.end(process))
    failed = open_batch(story.out).failed
    story.notes += [f"{row['id']}: {row['error']}" for row in failed]
    if [row["id"] for row in failed] != [poison]:
        raise RuntimeError(f"not only {poison} failed: {failed}")


def from_machine_to_cluster_and_back(bench: Bench, story: Story, cluster: Nodes) -> None:
    """Local, two nodes, local, and two nodes of which one is lost."""
    for number, (backend, share) in enumerate((("local", 0.2), ("ray", 0.4), ("local", 0.6))):
        more = ["--address", cluster.address] if backend == "ray" else []
        process = bench.start(story, backend, *more)
        if backend == "ray":
            both = wait_until(lambda: cluster.with_workers() == 2, 120)
            story.notes.append(f"workers on {2 if both else cluster.with_workers()} nodes")
        bench.wait_for(story, process, share)
        if number == 1:
            process.kill()
            process.communicate()
        else:
            process.send_signal(signal.SIGINT)
            bench.end(process, well=False)
    process = bench.start(story, "ray", "--address", cluster.address)
    wait_until(lambda: cluster.with_workers() == 2, 120)
    bench.wait_for(story, process, 0.75)
    before = committed(story.out)
    cluster.lose(1)
    story.killed += 1
    bench.end(process)
    story.notes.append(f"a node lost at {before} of {bench.shards} shards")


def compared(reference: Path, out: Path, disturbed: bool) -> dict[str, Any]:
    """How the shards differ from those of the undisturbed run. Raises RuntimeError where items are wrong."""
    ours, theirs = (
        {path.name: path for path in sorted(each.glob("shards/*.safetensors"))} for each in (out, reference)
    )
    ids, wanted = ([row["id"] for row in open_batch(each).table()] for each in (out, reference))
    if ids != wanted or len(set(ids)) != len(ids) or ours.keys() != theirs.keys():
        raise RuntimeError(f"{out.name}: items or shards are not those of the undisturbed run")
    equal = sum(ours[name].read_bytes() == theirs[name].read_bytes() for name in theirs)
    worst, differing = 0.0, 0
    for name in theirs:
        if ours[name].read_bytes() != theirs[name].read_bytes():
            far, count = distance(load_file(ours[name]), load_file(theirs[name]))
            worst, differing = max(worst, far), differing + count
    left = [path for path in out.rglob("*") if path.is_file() and path.name.endswith(".tmp")]
    right = equal == len(theirs) or (disturbed and worst <= TOLERANCE)
    if not right or left:
        raise RuntimeError(f"{out.name}: {equal} of {len(theirs)} shards equal, {worst:.1e} of the peak, {left} left")
    return {"items": len(ids), "equal": equal, "shards": len(theirs), "worst": worst, "left": len(left)}


def distance(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[float, int]:
    """The largest difference of a map as a share of its peak, of items answered in both; and how many differ."""
    both = (ours["status"] == 0) & (theirs["status"] == 0)
    worst, differing = 0.0, np.zeros(len(both), bool)
    for name in theirs:
        if name.startswith("maps/"):
            mine, reference = (each[name].reshape(len(both), -1).astype(np.float64) for each in (ours, theirs))
            far = np.abs(mine - reference).max(1) / np.maximum(np.abs(reference).max(1), 1e-30)
            worst = max(worst, float(far[both].max(initial=0)))
            differing |= both & (far > 0)
    return worst, int(differing.sum())


STORIES: tuple[Callable[[Bench, Story], None], ...] = (
    a_worker_is_killed,
    the_parent_is_killed_twice,
    the_disk_is_full,
    a_picture_kills_its_worker,
)


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="local", choices=["local", "ray"])
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--shard-size", type=int, default=50)
    names = [tell.__name__ for tell in STORIES]
    parser.add_argument("--story", nargs="*", default=names, choices=[*names, []], help="only these")
    parser.add_argument("--nodes", type=int, default=0, choices=[0, 2], help="continue on a Ray cluster of two nodes")
    asked = parser.parse_args(args)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background may ignore it
    rows: list[list[str]] = []
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), asked.pictures, asked.shard_size, asked.backend)
        make(bench.folder / "pictures", bench.count)
        stories: list[tuple[str, Callable[[Bench, Story], None]]] = [("undisturbed", undisturbed)]
        stories += [(told.__name__, told) for told in STORIES if told.__name__ in asked.story]
        for name, tell in stories:
            wrong += not run(bench, name, tell, rows)
        if asked.nodes:
            with nodes(asked.nodes) as cluster:
                name = from_machine_to_cluster_and_back.__name__
                wrong += not run(bench, name, lambda b, s: from_machine_to_cluster_and_back(b, s, cluster), rows)
    titles = ["", "items", "equal shards", "worst", "starts", "kills", "orphans", "left", "s"]
    print("\n".join(table("lrrrrrrrr", titles, rows)))
    return int(bool(wrong))


def run(bench: Bench, name: str, tell: Callable[[Bench, Story], None], rows: list[list[str]]) -> bool:
    """Tell one story and compare what is there with the run that nobody disturbed."""
    story = Story(name, bench.folder / name)
    began = time.monotonic()
    try:
        tell(bench, story)
        story.seconds = time.monotonic() - began
        found = compared(bench.folder / "undisturbed", story.out, tell is a_picture_kills_its_worker)
    except PermissionError as error:
        print(f"{name}: left out, {error}")
        return True
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"{name}: WRONG: {error}", flush=True)
        return False
    equal = f"{found['equal']} of {found['shards']}"
    numbers = [story.starts, story.killed, story.orphans, found["left"], f"{story.seconds:.0f}"]
    rows.append([name.replace("_", " "), str(found["items"]), equal, f"{found['worst']:.0e}", *map(str, numbers)])
    print(" | ".join(rows[-1]), *story.notes, sep="\n    ", flush=True)
    if name != "undisturbed":
        shutil.rmtree(story.out)
    return not story.orphans


def make(folder: Path, count: int) -> None:
    """Draw pictures; picture i is the same however many there are."""
    folder.mkdir()
    for start in range(0, count, 200):
        for number, picture in enumerate(draw(min(200, count - start), seed=start).pictures, start):
            Image.fromarray(picture).save(folder / f"{number:05}.png")


if __name__ == "__main__":
    sys.exit(main())
