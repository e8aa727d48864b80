"""What tests of commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cnnviz import demo


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three drawn pictures: circle.png, square.png, triangle.png."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, picture in zip(demo.CATEGORIES[:3], demo.pictures().pictures, strict=False):
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder
