"""The files that pages are made of, which lie beside the code, and how templates are filled."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template


@cache
def page_file(place: str, name: str) -> str:
    """The text of a file in a folder of ``cnnviz/pages``."""
    return (files(f"cnnviz.pages.{place}") / name).read_text("utf-8")


@cache
def template(place: str, name: str) -> Template:
    """A template that escapes all it is filled with, and refuses a name that it is not filled with."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(page_file(place, name))
