"""Results saved with all that belongs to them, and read again where there is no model."""

import cnnviz
from cnnviz.explanations import Explanations

model = cnnviz.load_model("demo")
picture = "demo/pictures/star.png"  # made by: cnnviz demo -o demo

results = cnnviz.explain(model, picture, ["grad_cam", "guided_backprop"])
results.save("results.safetensors")

again = Explanations.load("results.safetensors")
assert again["grad_cam"].values.equal(results["grad_cam"].values)
print(again.table())
again["guided_backprop"].save("read-again.png", "color", at="original")
again["grad_cam"].save("values.npy")  # the raw values alone, for NumPy
