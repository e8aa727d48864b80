"""Segmentation: why do these pixels have this class?"""

import cnnviz

model = cnnviz.load_model("demo-segmentation")  # or "fcn_resnet50", your own; scores (N, classes, H, W)
picture = "demo/pictures/star.png"  # made by: cnnviz demo -o demo

star = cnnviz.targets.region("star")  # where the model finds a star: the mean score there
results = cnnviz.explain(model, picture, ["grad_cam", "gradient"], target=star)
results.grid(at="original").save("segmentation-region.png")
