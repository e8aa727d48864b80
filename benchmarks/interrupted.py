"""A large folder, interrupted and continued: is each picture answered once, is nothing half-written, is memory flat?

python -m benchmarks.interrupted --pictures 2000
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from cnnviz.demo.drawing import draw
from cnnviz.images.writing import mark_of

INTERRUPTIONS = 2


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=2000)
    count = parser.parse_args(args).pictures
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background may ignore it
    with tempfile.TemporaryDirectory() as folder:
        pictures, maps = Path(folder, "pictures"), Path(folder, "maps")
        _make(pictures, count)
        command = [sys.executable, "-m", "cnnviz", "explain", str(pictures), "-o", f"{maps}/", "--skip-existing"]
        printed: Counter[str] = Counter()
        for number in range(INTERRUPTIONS + 1):
            stop_at = count * (number + 1) // (INTERRUPTIONS + 1) if number < INTERRUPTIONS else None
            status, lines, memory = _run(command, maps, stop_at)
            printed.update(line.partition(":")[0] for line in lines if ": " in line)
            written = _answers(maps)
            low, high = (round(each / 2**20) for each in memory)
            print(f"run {number + 1}: status {status}, {len(written)} answers, memory {low} to {high} MB")
        broken = [path for path in _answers(maps) if not _is_whole(path)]
        left = [path for path in maps.rglob("*") if path.is_file() and path.suffix != ".png"]
        twice = [name for name, times in printed.items() if times > 1]
        print(f"answered: {len(_answers(maps))} of {count}; told twice: {len(twice)}; broken: {len(broken)}; ", end="")
        print(f"temporary files left: {len(left)}")
        return int(bool(broken or left or twice) or len(_answers(maps)) != count)


def _make(folder: Path, count: int) -> None:
    folder.mkdir()
    for start in range(0, count, 200):
        for number, picture in enumerate(draw(min(200, count - start), seed=start).pictures, start):
            Image.fromarray(picture).save(folder / f"{number:05}.png")


def _run(command: Sequence[str], maps: Path, stop_at: int | None) -> tuple[int, list[str], tuple[int, int]]:
    """The status and the lines of a run, and the least and the most memory after its first answers, in bytes."""
    unbuffered = os.environ | {"PYTHONUNBUFFERED": "1"}  # or lines would be read long after they were written
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=unbuffered)
    seen: list[int] = []
    begun = len(_answers(maps))
    lines: list[str] = []
    for line in process.stdout or ():
        lines.append(line.rstrip())
        if len(lines) % 20 == 0 and len(lines) > 100:
            seen += filter(None, [_memory(process.pid)])
        if stop_at is not None and begun + len(lines) >= stop_at:
            process.send_signal(signal.SIGINT)
            stop_at = None
    return process.wait(), lines, (min(seen, default=0), max(seen, default=0))


def _memory(pid: int) -> int:
    try:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return int(fields["VmRSS"].split()[0]) * 1024
    except (OSError, KeyError):  # the process has ended, or this is no Linux
        return 0


def _answers(maps: Path) -> list[Path]:
    return sorted(maps.glob("*.png")) if maps.is_dir() else []


def _is_whole(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture.size == (96, 96) and mark_of(path) is not None
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
