"""The heat map as a NumPy array within 0 and 1, at the size of the picture."""

import numpy as np
from PIL import Image

import cnnviz

model = cnnviz.load_model("demo")
picture = "demo/pictures/star.png"  # made by: cnnviz demo -o demo

(heat,) = cnnviz.explain(model, picture, "grad_cam").heatmap(at="original")  # one for each picture
print(heat.shape, heat.dtype, heat.min(), heat.max())

pixels = np.asarray(Image.open(picture).convert("RGB"))
lit = pixels * (0.2 + 0.8 * heat[..., None])
Image.fromarray(lit.astype(np.uint8)).save("heat-map.png")
