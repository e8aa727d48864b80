"""
A vision transformer
====================

A transformer has tokens in place of pixels. Class activation maps find the grid of the tokens by themselves, and leave
the class token out.

The transformer here is a small one of torchvision's class **with random weights**, so its maps mean nothing. With
trained weights say ``cnnviz.load_model("vit_b_16")`` or ``"timm:vit_small_patch16_224"``.
"""

import torch
from torchvision.models import VisionTransformer

import cnnviz

torch.manual_seed(0)
network = VisionTransformer(
    image_size=96, patch_size=12, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=8
).eval()
torch.nn.init.normal_(network.heads[0].weight)  # torchvision begins with zeros, of which all maps are blank

picture = "demo/pictures/star.png"  # made by: cnnviz demo -o demo
preprocessing = cnnviz.demo.preprocessing()
results = cnnviz.explain(network, picture, ["grad_cam", "gradient"], preprocessing=preprocessing)
results

# %%
# The map has the grid of the tokens: 8 x 8 patches of 12 pixels. Its recipe names the layer that was chosen.

print(results["grad_cam"].recipe, tuple(results["grad_cam"].values.shape))
results["grad_cam"].save("vision-transformer.png")
