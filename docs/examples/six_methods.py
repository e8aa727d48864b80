"""
Compare six methods
===================

Do different methods point at the same things? Class activation maps (Grad-CAM, LayerCAM) and occlusion say where the
evidence lies. Gradients are fine, and show edges.
"""

import cnnviz

model = cnnviz.load_model("demo")  # or "resnet50", "timm:convnext_tiny", your own network
picture = "demo/pictures/star.png"  # made by: cnnviz demo -o demo

methods = ["grad_cam", "layer_cam", "guided_backprop", "integrated_gradients", "smoothgrad", "occlusion"]
results = cnnviz.explain(model, picture, methods)
results

# %%
# The table tells what was explained: the class, its score as the network gives it, and its probability.

results.table()

# %%
# One picture of all of them is written by ``save``. ``at="original"`` draws on the whole picture at its own size.

results.grid(columns=4, at="original").save("six-methods.png")
