"""The page of the demonstration: one page of HTML with the pictures beside it, and no scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

MADE_BY = "Made by cnnviz"
STYLE = """
:root { color-scheme: light dark; --quiet: light-dark(#5a6068, #a0a8b0); --tile: light-dark(#f1f3f5, #22262b); }
body { font: 1rem/1.55 system-ui, sans-serif; max-width: 66rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .75rem; }
h2 { font-size: 1.2rem; margin: 0 0 .35rem; }
p { max-width: 44rem; margin: 0 0 .75rem; }
figure { margin: 3rem 0 0; }
figure img { display: block; max-width: 100%; height: auto; border-radius: 4px; }
figcaption { margin-bottom: 1rem; }
code { display: block; overflow-wrap: anywhere; padding: .5rem .75rem; border-radius: 4px;
       font: .82rem/1.5 ui-monospace, monospace; color: var(--quiet); background: var(--tile); }
.small { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1.75rem; margin-top: 3rem; }
.small figure { margin: 0; min-width: 0; }
.small img { width: 100%; image-rendering: pixelated; margin-bottom: .6rem; }
.small h2 { font-size: 1rem; margin: 0; }
.small p { color: var(--quiet); margin: 0 0 .4rem; }
section { margin-top: 3rem; }
a { color: light-dark(#0b57a4, #8ec5ff); }
footer { margin-top: 3rem; color: var(--quiet); }
"""


@dataclass(frozen=True)
class Figure:
    """A picture beside the page, what it shows, and a command that draws it."""

    file: str
    title: str
    caption: str
    command: str = ""


@dataclass(frozen=True)
class Onward:
    """Where a reader goes from here."""

    report: str
    """A report beside the page."""
    command: str
    """What makes one of the reader's own picture."""


def page(
    title: str, introduction: str, figures: Sequence[Figure], small: Sequence[Figure], onward: Onward | None = None
) -> str:
    """The whole page. Small figures stand together at its end, without their commands."""
    from importlib.metadata import version

    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p>{escape(introduction)}</p>
{"" if onward is None else _closer(onward)}
{"".join(map(_figure, figures))}
<div class="small">
{"".join(map(_small, small))}
</div>
{"" if onward is None else _onward(onward)}
<footer>{MADE_BY} {escape(version("cnnviz"))}.</footer>
</body>
</html>
"""


def _figure(figure: Figure) -> str:
    return f"""<figure>
<figcaption><h2>{escape(figure.title)}</h2>
<p>{escape(figure.caption)}</p>
<code>{escape(figure.command)}</code></figcaption>
{_image(figure)}
</figure>
"""


def _small(figure: Figure) -> str:
    return f"""<figure>
{_image(figure)}
<figcaption><h2>{escape(figure.title)}</h2>
<p>{escape(figure.caption)}</p></figcaption>
</figure>
"""


def _closer(onward: Onward) -> str:
    return (
        f'<p><a href="{quote(onward.report)}">The report of these pictures</a> shows every map by itself: choose the '
        "class, the layer and the opacity, and read the value of a place.</p>"
    )


def _onward(onward: Onward) -> str:
    return f"""<section>
<h2>Now your own picture</h2>
<p>This command explains your picture and writes such a report. It downloads the weights of the network, once.</p>
<code>{escape(onward.command)}</code>
</section>
"""


def _image(figure: Figure) -> str:
    return f'<img src="{quote(figure.file)}" alt="{escape(figure.title)}: {escape(figure.caption)}">'
