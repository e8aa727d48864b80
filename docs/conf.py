"""How the pages are built: ``sphinx-build -W -b html docs docs/_build``, without a network connection."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "cnnviz"
author = "the cnnviz authors"
release = version = installed("cnnviz")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "pages_of_methods"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"cnnviz {release}"
templates_path: list[str] = []
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
suppress_warnings = ["myst.header"]
