"""
A map on the whole photograph
=============================

A network sees a square cut out of the photograph, often at a smaller size. An explanation remembers where that square
lies, and can be drawn on the whole photograph at its own size. What the network did not see stays as it is.
"""

import numpy as np
from PIL import Image

import cnnviz

star = Image.open("demo/pictures/star.png").convert("RGB").resize((300, 300))  # made by: cnnviz demo -o demo
photograph = Image.fromarray(np.pad(np.asarray(star), ((0, 0), (90, 90), (0, 0)), "symmetric"))
photograph.save("photograph.png")
print(photograph.size)

# %%
# The network of the demonstration takes 96 x 96 pixels. In the notebook's view the map is at that size.

model = cnnviz.load_model("demo")
result = cnnviz.explain(model, "photograph.png", "grad_cam")
result

# %%
# Here it is on the photograph. ``save(..., at="original")`` writes it.

result.save("whole.png", at="original")
Image.fromarray(result.render(at="original")[0])
