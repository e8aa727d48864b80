"""
Segmentation: why do these pixels have this class?
==================================================

A segmentation network gives every pixel a class. A target says which of its outputs are explained: here the mean score
of the class at the pixels where the network finds it.
"""

import cnnviz

model = cnnviz.load_model("demo-segmentation")  # or "fcn_resnet50", your own; scores (N, classes, H, W)
picture = "demo/pictures/star.png"  # made by: cnnviz demo -o demo

star = cnnviz.targets.region("star")
results = cnnviz.explain(model, picture, ["grad_cam", "gradient"], target=star)
results.grid(at="original").save("segmentation-region.png")
results
