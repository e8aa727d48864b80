"""
The transforms of your own training
===================================

An own network needs no name. Give the transforms that it was trained with as ``preprocessing``, and pictures are
prepared by them.
"""

import torch
from torchvision import transforms

import cnnviz

network = cnnviz.load_model("demo").module  # any network in eval mode
training = transforms.Compose(
    [
        transforms.Resize((96, 96)),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25]),
    ]
)
picture = "demo/pictures/star.png"  # made by: cnnviz demo -o demo

result = cnnviz.explain(network, picture, "grad_cam", preprocessing=training)
assert torch.is_tensor(result.inputs)
result.save("compose.png", at="original")
result
