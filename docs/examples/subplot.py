"""
In a subplot of matplotlib
==========================

``plot`` draws into any axes, in colours of your own. Nothing else of matplotlib changes.
"""

import matplotlib.pyplot as plt
from PIL import Image

import cnnviz

model = cnnviz.load_model("demo")
picture = Image.open("demo/pictures/star.png")  # made by: cnnviz demo -o demo
result = cnnviz.explain(model, picture, "grad_cam")

figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3))
left.imshow(picture)
left.set_title("the picture")
result.plot(right, at="original", colormap=plt.cm.magma, opacity=0.7, bar=True)
figure.savefig("subplot.png")
