"""A small vision transformer in torchvision's style: a stem of convolutions, then three blocks of self-attention."""

from __future__ import annotations

from torchvision.models.vision_transformer import ConvStemConfig, VisionTransformer

STEM = [ConvStemConfig(24, 3, 2), ConvStemConfig(48, 3, 2), ConvStemConfig(64, 3, 3)]


def transformer(classes: int = 8) -> VisionTransformer:
    """Scores (N, classes) of pictures (N, 3, 96, 96), read from a class token beside 8 x 8 tokens of 12 x 12 pixels."""
    return VisionTransformer(
        image_size=96,
        patch_size=12,
        num_layers=3,
        num_heads=4,
        hidden_dim=64,
        mlp_dim=128,
        num_classes=classes,
        conv_stem_configs=STEM,
    )
