"""
Many pictures, each with its own class
======================================

Sixty-four pictures are explained in one call, each towards its true class, which the network may not have named.
"""

from PIL import Image

import cnnviz
from cnnviz.demo.drawing import draw

model = cnnviz.load_model("demo")
drawn = draw(64, seed=1)  # pictures (64, 96, 96, 3) in uint8, and labels (64,); a list of paths does as well

results = cnnviz.explain(model, list(drawn.pictures), "grad_cam", target=drawn.labels.tolist())
print(f"mean score of the own class: {results.score.mean():.2f}")

# %%
# All of them in one picture:

sheet = Image.fromarray(cnnviz.grid({"grad_cam": results}, columns=16))
sheet.save("many-targets.png")
sheet
