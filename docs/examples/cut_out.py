"""
Cut the object out
==================

The warmest places of a map are examples of the object, the coldest are examples of what is behind it. ``segment``
learns the colours of both, and cuts the object out. No mask was given to anyone.
"""

import cnnviz

model = cnnviz.load_model("demo")
pictures = ["demo/pictures/star.png", "demo/pictures/heart.png"]  # made by: cnnviz demo -o demo

found = cnnviz.segment(cnnviz.explain(model, pictures, "grad_cam"))
found

# %%
# ``save`` writes the masks: 255 on the object, 0 elsewhere. ``at="original"`` gives them the size of the photograph.

found.save("mask.png", at="original")
found.boxes  # left, top, right, bottom in pixels
