"""How the pages are built: ``sphinx-build -W -b html docs docs/_build``, without a network connection."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

from gallery_of_examples import PAGES, copied  # found by the line above

project = "cnnviz"
author = project_copyright = "the cnnviz authors"
release = version = installed("cnnviz")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "pages_of_methods"]
extensions += ["sphinx_gallery.gen_gallery", "gallery_of_examples"]
exclude_patterns = ["_build", "_extensions", "examples"]
html_theme = "furo"
html_title = f"cnnviz {release}"
templates_path: list[str] = []
html_static_path = ["_static"]
html_css_files = ["pages.css"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
suppress_warnings = ["myst.header"]
sphinx_gallery_conf = {
    "examples_dirs": copied(),
    "gallery_dirs": PAGES,
    "filename_pattern": "",  # all of them
    "ignore_pattern": "demo/",
    "within_subsection_order": "gallery_of_examples.InOrder",
    "capture_repr": ("_repr_html_",),
    "image_scrapers": ("matplotlib", "gallery_of_examples"),
    "reset_modules": ("matplotlib",),
    "run_stale_examples": True,  # what they show changes with cnnviz
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "remove_config_comments": True,
}
