"""A map for each layer through the depth of the network: from edges to objects."""

from PIL import Image

import cnnviz

model = cnnviz.load_model("demo")
picture = "demo/pictures/star.png"  # made by: cnnviz demo -o demo

layer_cam = cnnviz.attributions["layer_cam"]  # weighs each place by itself, so early layers say something too
layers = ["conv1", "layer1", "layer2", "layer3"]  # cnnviz layers MODEL lists them
results = cnnviz.explain(model, picture, [layer_cam(layer=layer) for layer in layers])
by_layer = dict(zip(layers, results.values(), strict=True))
Image.fromarray(cnnviz.grid(by_layer, at="original")).save("depth.png")
