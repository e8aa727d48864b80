"""Six methods on one picture: do they point at the same things?"""

import cnnviz

model = cnnviz.load_model("demo")  # or "resnet50", "timm:convnext_tiny", your own network
picture = "demo/pictures/star.png"  # made by: cnnviz demo -o demo

methods = ["grad_cam", "layer_cam", "guided_backprop", "integrated_gradients", "smoothgrad", "occlusion"]
results = cnnviz.explain(model, picture, methods)
print(results.table())
results.grid(columns=4, at="original").save("six-methods.png")
