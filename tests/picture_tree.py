"""Pictures in folders, for tests of what a batch run is over."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def put(folder: Path, *names: str) -> None:
    """Pictures, each of a colour of its own: its first channel is its number."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), (number, 7, 9)).save(path)
