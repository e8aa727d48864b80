"""The pages of the gallery, as text: docs/gallery.md shows every method, docs/renderers.md every renderer."""

from __future__ import annotations

from pathlib import Path

from families import FAMILIES

import cnnviz

FIGURES = {
    **{"saliency_confusion": "confusion_matrix", "projections": "by_channel"},
    **{"activation": "channels", "layer_relevance": "channels"},
}
"""Methods that have renderers of their own, which draw all of their maps into one figure."""
CHANNELS = {"activation": 48, "layer_relevance": 24}
"""How many channels are drawn."""
ELSEWHERE = {"d_rise": "It explains detections: [Layers, targets, inputs](layers-targets-inputs.md) has a picture."}
ATTENDING = FAMILIES["Attention"][1]
"""Methods that need a network with attention, which that of the photographs has not."""
RENDERED = ("grad_cam", "integrated_gradients")
"""The methods that each renderer is shown with: a coarse map without a sign for pixels, and a fine one with signs."""
SIGNALS = ("line", "projection", "slices")
"""Renderers of signals and volumes."""
MADE = {  # pictures that docs/make_pictures.py draws
    "feature_image": ("filters", "A row of patterns, each of which one channel responds to most"),
    "class_image": ("class", "A picture with the patterns of one class all over"),
    "deep_dream": ("dream", "A photograph in which patterns of a layer are exaggerated"),
    "inversion": ("inverted", "A picture, and what three layers preserve of it"),
}
NOTES = {
    "attention_rollout": "It does not ask for the class.",
    "deconvnet": "It is gray here, and that is right: captum gives the same. At each rectifier the method cuts what is "
    "negative in the gradient. In this network a spot in the corner is left for the cat, and nothing for the espresso. "
    "The method was made for single channels: see [projections](#projections), which carries them back with it.",
    "eigen_cam": "Both rows are the same: the method does not ask for the class.",
    "meaningful_perturbation": "The map of the cat is blank, and that is right. The method looks for a mask that makes "
    'the probability of the class fall. Here the probability of "Egyptian cat" is below 0.1 %, so nothing can fall.',
    "activation": "48 of 512 channels are shown.",
    "layer_relevance": "24 of 512 channels are shown; all but 29 have none.",
    "conditional_relevance": "Each row is what one channel of 512 finds: the one with the most relevance for the "
    "class. [Concepts](concepts.md) shows what other pictures a channel sees.",
    "smoothgrad_squared": "Squares have no sign, so `diverging` shows one colour.",
    "vargrad": "A variance has no sign, so `diverging` shows one colour.",
}
OF_RENDERERS = {
    "negative": "Grad-CAM has one channel, and little speaks against the class, so its picture is nearly black.",
    "positive": "A map of one channel is gray.",
    "color": "A map of one channel is gray.",
    "segmentation": "A fine map points at single pixels, so the object is smaller than that of a coarse map.",
    "boxes": "It draws explanations of detections: [Layers, targets, inputs](layers-targets-inputs.md) has a picture.",
}
INTRODUCTION = Path(__file__).with_name("gallery_introduction.txt")


def methods() -> list[str]:
    """The attributions with a section and a picture of maps, in the order of the page."""
    names = [name for _, family in FAMILIES.values() for name in family]
    return [name for name in names if name not in FIGURES and name not in ELSEWHERE and name not in ATTENDING]


def renderers() -> list[str]:
    """The renderers of pictures, which draw any map."""
    skipped = {*SIGNALS, *FIGURES.values(), "boxes"}
    return [name for name in cnnviz.renderers if name not in skipped]


def line(name: str) -> str:
    """The call that explains the picture."""
    if name in ATTENDING:
        return f'cnnviz.explain(cnnviz.load_model("demo-transformer"), "circle.png", "{name}").save("{name}.png")'
    return f'cnnviz.explain(model, "cat-and-cup.png", "{name}", target="espresso").save("{name}.png")'


def write_pages(folder: Path) -> None:
    (folder / "gallery.md").write_text("\n".join(gallery()) + "\n")
    (folder / "renderers.md").write_text("\n".join(renderer_page()) + "\n")


def gallery() -> list[str]:
    page = [INTRODUCTION.read_text()]
    for title, (sentence, names) in FAMILIES.items():
        page += [f"## {title}", "", sentence, ""]
        for name in names:
            page += [f"### {name}", "", cnnviz.attributions[name].summary, ""]
            if name in ELSEWHERE:
                page += [ELSEWHERE[name], ""]
                continue
            page += [f"`{line(name)}`", ""]
            if name in ATTENDING:
                page += [f"![The maps of {name} for a drawn circle and a drawn star](gallery/{name}.jpg)", ""]
            elif name in FIGURES:
                page += [f"![What {name} gives, by its own renderer {FIGURES[name]}](gallery/{name}.jpg)", ""]
            else:
                page += [f"![The maps of {name} for the cat and for the espresso](gallery/{name}.jpg)", ""]
            page += [NOTES[name], ""] if name in NOTES else []
            page += [f"{{ref}}`Settings, cost and verdict of {name} <method-{name}>`", ""]
    page += ["## Pictures that are made", "", "A synthesis makes a picture that a part of the network responds to.", ""]
    for name, (file, alternative) in MADE.items():
        page += [f"### {name}", "", cnnviz.syntheses[name].summary, ""]
        page += [f"![{alternative}](pictures/seeds/{file}.png)", ""]
    page += ["The commands that made them are on the page [From five earlier projects](seeds.md)."]
    return page


def renderer_page() -> list[str]:
    """What each renderer draws of a coarse and of a fine map."""
    left, right = RENDERED
    page = [
        "# Ways to draw a map",
        "",
        f"A renderer turns a map into a picture. Every renderer of pictures is shown here with two methods: {left}, "
        f"whose map is coarse, and {right}, whose map has values for each pixel and colour. Both explain the class "
        '"espresso" of [the gallery\'s picture](gallery.md).',
        "",
        "On the command line a renderer is `--render NAME`; in Python it is the second argument of `save`. "
        "`render` gives an array. Without one, each method has its own.",
        "",
        "```python",
        "import cnnviz",
        "from cnnviz import demo",
        "",
        'model = cnnviz.load_model("demo")',
        'result = cnnviz.explain(model, demo.as_inputs(demo.pictures().pictures[:1]), "grad_cam")',
        'result.save("diverging.png", "diverging")',
        'pixels = result.render("heatmap", colormap="viridis")  # (1, 96, 96, 3), uint8',
        "```",
        "",
    ]
    for name in renderers():
        page += [f"## {name}", "", cnnviz.renderers[name].summary, "", f'`result.save("{name}.png", "{name}")`', ""]
        page += [f"![{left} and {right} of the espresso, drawn by {name}](gallery/renderer-{name}.jpg)", ""]
        page += [OF_RENDERERS[name], ""] if name in OF_RENDERERS else []
    page += ["## boxes", "", cnnviz.renderers["boxes"].summary, "", OF_RENDERERS["boxes"], ""]
    page += ["## Renderers of one method", ""]
    page += ["These draw several maps into one figure, and belong to the method that gives them.", ""]
    page += [f"- `{name}`: [{method}](gallery.md#{method})" for method, name in FIGURES.items()]
    page += ["", "## Signals and volumes", ""]
    page += ["Each is shown with a network that was trained on noise with a narrow or a wide bump somewhere.", ""]
    for name in SIGNALS:
        page += [f"### {name}", "", cnnviz.renderers[name].summary, ""]
        page += [f"![A bump, and the map of it, drawn by {name}](gallery/{name}.jpg)", ""]
    return page
