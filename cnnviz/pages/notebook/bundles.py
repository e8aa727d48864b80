"""The mimebundle of an answer: what a notebook shows of it, by kind. Whatever goes wrong, the text is there."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Container
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cnnviz.pages.shared.texts import plain_letters

if TYPE_CHECKING:
    from cnnviz.pages.notebook.page import Page

HTML, PNG, TEXT = "text/html", "image/png", "text/plain"
LIMIT = 300_000
"""Characters of HTML, and of a picture: a notebook keeps every output in its file."""
WIDEST = 1200
"""Pixels of the longer side of a picture."""
SHOWN_BY = {
    "cnnviz.explanations.explanation.Explanation": ("explained", "of_one"),
    "cnnviz.explanations.explanation_set.Explanations": ("explained", "of_methods"),
    "cnnviz.explanations.explanation_set.ExplanationList": ("explained", "of_targets"),
    "cnnviz.explanations.joint.JointExplanation": ("explained", "of_inputs"),
    "cnnviz.explanations.tables.Table": ("tables", "of_table"),
    "cnnviz.explanations.evaluation.Evaluation": ("tables", "of_evaluation"),
    "cnnviz.models.prediction.Ranking": ("tables", "of_ranking"),
    "cnnviz.models.prediction.Predictions": ("tables", "of_predictions"),
    "cnnviz.models.loading.LoadedModel": ("tables", "of_model"),
    "cnnviz.feature_visualization.result.Synthesized": ("made", "of_synthesized"),
    "cnnviz.tasks.object_segmentation.Segmentation": ("made", "of_segmentation"),
    "cnnviz.tasks.confusion_matrix.ConfusionMatrix": ("made", "of_confusions"),
    "cnnviz.tasks.detection.Detections": ("tables", "of_detections"),
    "cnnviz.tasks.channel_relevance.TopChannels": ("tables", "of_top_channels"),
    "cnnviz.tasks.top_activations.TopActivations": ("made", "of_top_activations"),
    "cnnviz.datasets.stored.batch_view.Batch": ("of_data_sets", "of_batch"),
    "cnnviz.datasets.findings.auditing.Audit": ("of_data_sets", "of_audit"),
    "cnnviz.registry.registry.Registry": ("registered", "of_registry"),
    "cnnviz.registry.registry.Method": ("registered", "of_method"),
}
"""For each kind of answer the file beside this one, and its function, that tells what is shown."""


def bundle(answer: Any, include: Container[str] | None, exclude: Container[str] | None) -> dict[str, str]:
    """As :meth:`cnnviz.images.in_notebooks.InNotebooks._repr_mimebundle_`."""

    def asked(kind: str) -> bool:
        return (include is None or kind in include) and (exclude is None or kind not in exclude)

    text = plain_letters(_text(answer))
    shown: dict[str, str] = {TEXT: text} if asked(TEXT) else {}
    if not asked(HTML) and not asked(PNG):
        return shown
    try:
        page = _page(answer)
    except Exception as error:  # a notebook would show a traceback in place of the answer
        return shown | ({HTML: plain_letters(_reason(text, error))} if asked(HTML) else {})
    if asked(HTML):
        shown[HTML] = plain_letters(_written(page, text))
    if asked(PNG) and page.picture is not None and (picture := _picture(page)) is not None:
        shown[PNG] = picture
    return shown


def _page(answer: Any) -> Page:
    for kind in type(answer).__mro__:
        known = SHOWN_BY.get(f"{kind.__module__}.{kind.__qualname__}")
        if known is not None:
            place, name = known
            page: Page = getattr(import_module(f"cnnviz.pages.notebook.{place}"), name)(answer)
            return page
    raise TypeError(f"a {type(answer).__name__} has no picture")


def _text(answer: Any) -> str:
    try:
        return repr(answer)
    except Exception as error:  # values of a batch are read when they are asked for, and may be gone
        return f"<{type(answer).__name__}, which can't be read: {_one_line(error)}>"


def _written(page: Page, text: str) -> str:
    from cnnviz.pages.notebook.writing import written

    try:
        return written(page, LIMIT)
    except Exception as error:
        return _reason(text, error)


def _reason(text: str, error: Exception) -> str:
    """The answer as text, and why it can't be drawn."""
    return f"<pre>{escape(text[:4000])}</pre><p>This answer can't be drawn: {escape(_one_line(error))}</p>"


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:1000]


def _picture(page: Page) -> str | None:
    """The PNG picture in base64; None where it can't be drawn, or would be too large for a notebook."""
    from cnnviz.drawing.montage import fitted
    from cnnviz.images.writing import encoded

    try:
        assert page.picture is not None
        pixels = page.picture()
        pixels = fitted(pixels, WIDEST) if max(pixels.shape) > WIDEST else pixels
        content = b64encode(encoded(pixels, ".png")).decode()
    except Exception:  # the text and the HTML say what there is
        return None
    return content if len(content) <= LIMIT else None
