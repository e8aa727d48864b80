"""The toolkit of renderers: arrays, intensity scales, text, montages, figures. Nothing here asks a model.

Its public names are listed here; like those of ``cnnviz`` they are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnviz.lazy_names import lazy_names

if TYPE_CHECKING:
    from cnnviz.drawing.arrays import check_rank as check_rank
    from cnnviz.drawing.arrays import check_share as check_share
    from cnnviz.drawing.arrays import heat as heat
    from cnnviz.drawing.arrays import heat_and_peaks as heat_and_peaks
    from cnnviz.drawing.arrays import is_coarse as is_coarse
    from cnnviz.drawing.arrays import magnitudes as magnitudes
    from cnnviz.drawing.arrays import resized as resized
    from cnnviz.drawing.arrays import values_of as values_of
    from cnnviz.drawing.colors import colormap_named as colormap_named
    from cnnviz.drawing.colors import colors_of as colors_of
    from cnnviz.drawing.colors import gray as gray
    from cnnviz.drawing.colors import mixed as mixed
    from cnnviz.drawing.figure import GAP as GAP
    from cnnviz.drawing.figure import LEGEND_WIDTH as LEGEND_WIDTH
    from cnnviz.drawing.figure import LINE_HEIGHT as LINE_HEIGHT
    from cnnviz.drawing.figure import SMALL_TEXT as SMALL_TEXT
    from cnnviz.drawing.figure import Legend as Legend
    from cnnviz.drawing.figure import PixelFigure as PixelFigure
    from cnnviz.drawing.figure import display_size as display_size
    from cnnviz.drawing.figure import legends as legends
    from cnnviz.drawing.figure import wrapped as wrapped
    from cnnviz.drawing.figure import wrapped_titles as wrapped_titles
    from cnnviz.drawing.input_images import as_uint8 as as_uint8
    from cnnviz.drawing.input_images import draw_inputs as draw_inputs
    from cnnviz.drawing.input_images import pictures_of as pictures_of
    from cnnviz.drawing.intensity import ROUNDING as ROUNDING
    from cnnviz.drawing.intensity import Floats as Floats
    from cnnviz.drawing.intensity import Scale as Scale
    from cnnviz.drawing.intensity import fraction_of_peak as fraction_of_peak
    from cnnviz.drawing.montage import Cell as Cell
    from cnnviz.drawing.montage import Layout as Layout
    from cnnviz.drawing.montage import Pixels as Pixels
    from cnnviz.drawing.montage import enlarged as enlarged
    from cnnviz.drawing.montage import fitted as fitted
    from cnnviz.drawing.montage import in_rows as in_rows
    from cnnviz.drawing.montage import laid_out as laid_out
    from cnnviz.drawing.montage import sheet as sheet
    from cnnviz.drawing.montage import tiled as tiled
    from cnnviz.drawing.text import font as font
    from cnnviz.drawing.text import lines as lines

_NAMES = {
    "arrays": "check_rank check_share heat heat_and_peaks is_coarse magnitudes resized values_of",
    "colors": "colormap_named colors_of gray mixed",
    "figure": "GAP LEGEND_WIDTH LINE_HEIGHT SMALL_TEXT Legend PixelFigure display_size legends wrapped wrapped_titles",
    "input_images": "as_uint8 draw_inputs pictures_of",
    "intensity": "ROUNDING Floats Scale fraction_of_peak",
    "montage": "Cell Layout Pixels enlarged fitted in_rows laid_out sheet tiled",
    "text": "font lines",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = list(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
