"""
Save results, and read them again
=================================

A file ``.safetensors`` keeps the values with all that belongs to them. It is read where there is no model.
"""

import cnnviz
from cnnviz.explanations import Explanations

model = cnnviz.load_model("demo")
picture = "demo/pictures/star.png"  # made by: cnnviz demo -o demo

results = cnnviz.explain(model, picture, ["grad_cam", "guided_backprop"])
results.save("results.safetensors")

# %%
# Read again, the values are the same, bit for bit.

again = Explanations.load("results.safetensors")
assert again["grad_cam"].values.equal(results["grad_cam"].values)
again

# %%
# The suffix says what is written: pictures, or the raw values for NumPy.

again["guided_backprop"].save("read-again.png", "color", at="original")
again["grad_cam"].save("values.npy")
