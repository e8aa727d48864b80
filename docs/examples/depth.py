"""
A map for each layer
====================

How does the evidence come together through the depth of a network? Early layers show parts of edges, the last one
shows the object. LayerCAM weighs each place by itself, so it can read early layers too.
"""

from PIL import Image

import cnnviz

model = cnnviz.load_model("demo")
picture = "demo/pictures/star.png"  # made by: cnnviz demo -o demo

layer_cam = cnnviz.attributions["layer_cam"]
layers = ["conv1", "layer1", "layer2", "layer3"]  # cnnviz layers MODEL lists them
results = cnnviz.explain(model, picture, [layer_cam(layer=layer) for layer in layers])
results

# %%
# With names of your own, as one picture:

by_layer = dict(zip(layers, results.values(), strict=True))
Image.fromarray(cnnviz.grid(by_layer, at="original")).save("depth.png")
