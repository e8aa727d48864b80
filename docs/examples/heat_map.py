"""
The map as a NumPy array
========================

``heatmap`` gives numbers within 0 and 1, here at the size of the picture. What is made of them is up to you.
"""

import numpy as np
from PIL import Image

import cnnviz

model = cnnviz.load_model("demo")
picture = "demo/pictures/star.png"  # made by: cnnviz demo -o demo

(heat,) = cnnviz.explain(model, picture, "grad_cam").heatmap(at="original")  # one for each picture
print(heat.shape, heat.dtype, heat.min(), heat.max())

# %%
# The picture, dark where the map says nothing:

pixels = np.asarray(Image.open(picture).convert("RGB"))
lit = Image.fromarray((pixels * (0.2 + 0.8 * heat[..., None])).astype(np.uint8))
lit.save("heat-map.png")
lit.resize((288, 288))
