"""
Detection: why this box?
========================

``detect`` numbers what a detector finds, and ``box(number)`` explains one of its boxes.

The detector here is torchvision's SSDlite **with random weights**, because trained ones would have to be downloaded.
So its boxes mean nothing, and only the way to ask is shown. Without ``weights`` and ``num_classes`` the trained
detector is loaded.
"""

import torch

import cnnviz

torch.manual_seed(0)
detector = cnnviz.load_model("ssdlite320_mobilenet_v3_large", weights="random", num_classes=3)
picture = "demo/pictures/star.png"  # made by: cnnviz demo -o demo

detections = cnnviz.detect(detector, picture, at="original")
print(f"{len(detections[0])} boxes; the first is {detections[0][0]}")

# %%
# Grad-CAM of the score of the first box. The box is drawn over the map.

result = cnnviz.explain(detector, picture, "grad_cam", target=cnnviz.targets.box(0))
result.save("detection.png", "boxes")
result
