"""The layers that a person would choose for a CAM, written down before any was measured.

For each network the layer's name and the grid of its map at the size that ``benchmarks.zoo`` uses. Several names, with
``|`` between them, hold the same map (a norm that is an identity, a stage and the whole of the stages). ``*`` is the
level of a pyramid, which depends on the box. A grid of ``?`` depends on the box too.

The rule: the last map from which the score is still reached, before pooling, and before it becomes a map of classes.
Where a class token is read, that is the norm in front of the last attention that reads the patches. Where tokens are
averaged, it is the last norm in front of the average.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

EXPECTED: dict[str, tuple[str, str]] = {
    # torchvision, classification
    "alexnet": ("features.11", "3x3"),
    "convnext_tiny": ("features|features.7", "2x2"),
    "densenet121": ("features|features.norm5", "2x2"),
    "efficientnet_b0": ("features|features.8", "2x2"),
    "googlenet": ("inception5b", "2x2"),
    "inception_v3": ("Mixed_7c", "3x3"),
    "maxvit_t": ("blocks|blocks.3", "7x7"),
    "mnasnet0_5": ("layers", "2x2"),
    "mobilenet_v2": ("features|features.18", "2x2"),
    "mobilenet_v3_small": ("features|features.12", "2x2"),
    "regnet_y_400mf": ("trunk_output", "2x2"),
    "resnet18": ("layer4|layer4.1", "2x2"),
    "resnext50_32x4d": ("layer4|layer4.2", "2x2"),
    "shufflenet_v2_x0_5": ("conv5", "2x2"),
    "squeezenet1_1": ("features|features.12", "3x3"),
    "swin_t": ("norm|permute", "2x2"),
    "swin_v2_t": ("norm|permute", "2x2"),
    "vgg16": ("features.29", "4x4"),
    "vit_b_16": ("encoder.layers.encoder_layer_11.ln_1", "4x4"),
    # torchvision, segmentation: the last map before the one of classes
    "deeplabv3_resnet50": ("classifier.3", "8x8"),
    "fcn_resnet50": ("classifier.2", "8x8"),
    "lraspp_mobilenet_v3_large": ("classifier.cbr", "4x4"),
    # torchvision, video
    "mvit_v2_s": ("blocks.15.norm1", "8x7x7"),
    "r3d_18": ("layer4|layer4.1", "1x4x4"),
    "s3d": ("features|features.15", "2x7x7"),
    "swin3d_t": ("norm", "4x2x2"),
    # torchvision, detection: the level of the pyramid that the box comes from
    "fasterrcnn_resnet50_fpn": ("backbone.fpn.layer_blocks.*", "?"),
    "maskrcnn_resnet50_fpn": ("backbone.fpn.layer_blocks.*", "?"),
    "retinanet_resnet50_fpn": ("head.classification_head.conv", "?"),
    "fcos_resnet50_fpn": ("head.classification_head.conv", "?"),
    "ssd300_vgg16": ("backbone.features*|backbone.extra.*", "?"),
    "ssdlite320_mobilenet_v3_large": ("head.classification_head.module_list.*.0", "?"),
    # timm, convolutions
    "timm:cspdarknet53": ("stages|stages.4", "2x2"),
    "timm:dla34": ("level5", "2x2"),
    "timm:edgenext_xx_small": ("stages|norm_pre|stages.3", "2x2"),
    "timm:efficientvit_b0": ("head.in_conv", "2x2"),
    "timm:ese_vovnet19b_dw": ("stages|stages.3", "2x2"),
    "timm:hrnet_w18_small": ("final_layer", "2x2"),
    "timm:mobilenetv3_small_050": ("blocks", "2x2"),
    "timm:mobilevit_xxs": ("final_conv", "2x2"),
    "timm:nf_regnet_b0": ("final_act", "2x2"),
    "timm:repvgg_a0": ("stages|final_conv", "2x2"),
    "timm:resnetv2_50": ("norm", "2x2"),
    "timm:vgg11": ("features.19", "4x4"),
    # timm, tokens and channels last
    "timm:beit_base_patch16_224": ("blocks.11|norm", "4x4"),
    "timm:cait_xxs24_224": ("blocks_token_only.1.norm1", "4x4"),
    "timm:coat_lite_tiny": ("serial_blocks4.1.norm1", "2x2"),
    "timm:coat_tiny": ("parallel_blocks.5.norm14", "2x2"),
    "timm:convit_tiny": ("blocks.11.norm1", "4x4"),
    "timm:davit_tiny": ("stages|norm_pre", "2x2"),
    "timm:deit3_small_patch16_224": ("blocks.11.norm1", "4x4"),
    "timm:efficientformer_l1": ("norm", "7x7"),
    "timm:eva02_tiny_patch14_224": ("blocks.11|norm", "4x4"),
    "timm:focalnet_tiny_srf": ("norm", "2x2"),
    "timm:hiera_tiny_224": ("blocks.11", "7x7"),
    "timm:levit_128s": ("stages", "4x4"),
    "timm:mixer_s32_224": ("norm", "7x7"),
    "timm:mvitv2_tiny": ("norm", "7x7"),
    "timm:pit_ti_224": ("transformers.2.blocks.3.norm1", "7x7"),
    "timm:pvt_v2_b0": ("stages|stages.3|stages.3.norm", "2x2"),
    "timm:sequencer2d_s": ("norm", "4x4"),
    "timm:swin_tiny_patch4_window7_224": ("norm", "7x7"),
    "timm:tiny_vit_5m_224": ("stages|stages.3", "7x7"),
    "timm:twins_svt_small": ("norm", "7x7"),
    "timm:vit_small_patch14_reg4_dinov2": ("blocks.11.norm1", "4x4"),
    "timm:vit_tiny_patch16_224": ("blocks.11.norm1", "4x4"),
    "timm:volo_d1_224": ("norm", "14x14"),
    "timm:xcit_nano_12_p16_224": ("cls_attn_blocks.1.norm1", "4x4"),
    # Hugging Face
    "hf:beit": ("beit.encoder.layer.1|beit.layers.1", "4x4"),
    "hf:convnext": ("convnext.encoder.stages.3", "2x2"),
    "hf:detr": ("model.encoder.layers.1.final_layer_norm|model.encoder.layers.1|model.encoder", "2x2"),
    "hf:resnet": ("resnet.encoder.stages.3", "2x2"),
    "hf:segformer": ("decode_head.activation|decode_head.batch_norm", "16x16"),
    "hf:swin": ("swin.layernorm", "2x2"),
    "hf:vit": ("vit.encoder.layer.1.layernorm_before|vit.layers.1.layernorm_before", "4x4"),
}


def verdict(network: str, layer: str, grid: str) -> str:
    """What the list says of a layer and its grid: "right", "not listed", or what it wants instead."""
    if network not in EXPECTED:
        return "not listed"
    names, wanted_grid = EXPECTED[network]
    right_name = any(fnmatchcase(layer, name) for name in names.split("|"))
    if right_name and wanted_grid in ("?", grid):
        return "right"
    return f"wrong: {names} {wanted_grid} wanted"
