"""
The five most probable classes
==============================

What does the network find besides its first answer, and what speaks for each? A map is of the score of a class. The
probability stands beside the score.
"""

import cnnviz

model = cnnviz.load_model("demo")
picture = "demo/pictures/star.png"  # made by: cnnviz demo -o demo

model.predict(picture, top=5)

# %%
# ``top(5)`` explains the five classes one by one, from one forward pass.

ranks = cnnviz.explain(model, picture, "grad_cam", target=cnnviz.targets.top(5))
ranks

# %%
# They are a list, and one picture of all of them.

ranks.grid(columns=3, at="original").save("top-five.png")
