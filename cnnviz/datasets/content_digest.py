"""Whether a picture is still the one that was explained."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cnnviz.datasets.items import Opened
from cnnviz.images.places import file_and_place


def content_digest(opened: Opened) -> str:
    """The sha256 of what a source opened: of a file its bytes, else of the kind, the shape and the values."""
    if isinstance(opened, str | Path):
        with file_and_place(Path(opened))[0].open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if isinstance(opened, Image.Image):
        upright = opened.getexif().get(0x0112)  # the orientation: read as it is told there
        kind, content = f"{opened.mode} {opened.size} {upright}", opened.tobytes()
    elif isinstance(opened, torch.Tensor):
        tensor = opened.detach().cpu().contiguous()
        kind, content = f"{tensor.dtype} {tuple(tensor.shape)}", tensor.flatten().view(torch.uint8).numpy().tobytes()
    else:
        kind, content = f"{opened.dtype} {opened.shape}", np.ascontiguousarray(opened).tobytes()
    return hashlib.sha256(kind.encode() + b"\n" + content).hexdigest()
