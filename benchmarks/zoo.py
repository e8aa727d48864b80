"""The networks of ``benchmarks.coverage``, with random weights, at a size they take, and what is asked of each."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

import cnnviz
import cnnviz.targets


@dataclass(frozen=True)
class Network:
    """One network."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 64, 64)
    """Of one input."""
    target: Any = None

    def made(self) -> tuple[nn.Module, Tensor]:
        """The network in eval mode, and an input (1, C, *spatial)."""
        torch.manual_seed(0)
        model = self.build().eval()
        return model, torch.rand(1, *self.shape)


TIMM = """
    bat_resnext26ts:256 botnet26t_256:256 coatnet_nano_rw_224:224 convmixer_768_32 convnext_atto convnextv2_atto
    crossvit_9_240:240 cspdarknet53 cspresnet50 darknet53 densenet121 dla34 dpn48b eca_nfnet_l0 edgenext_xx_small
    efficientnet_b0 efficientnet_lite0 efficientnetv2_rw_t efficientvit_b0 efficientvit_m0:224 ese_vovnet19b_dw
    fasternet_t0 fastvit_t8:256 fbnetc_100 gernet_s ghostnet_050 halonet26t:256 hardcorenas_a hgnetv2_b0
    hrnet_w18_small inception_next_atto inception_v4:96 lambda_resnet26t:256 lcnet_035 legacy_xception mambaout_femto
    mixnet_s mobilenetv2_050 mobilenetv3_small_050 mobilenetv4_conv_small mobileone_s0 mobilevit_xxs mobilevitv2_050
    nextvit_small:224 nf_regnet_b0 poolformer_s12 rdnet_tiny regnetx_002 repvgg_a0 repvit_m0_9 res2net50_14w_8s
    resnest14d resnet18 resnetv2_50 rexnet_100 selecsls42 shvit_s1:224 skresnet18 starnet_s050 swiftformer_xs:224
    tinynet_e tresnet_m vgg11 visformer_tiny:224 xception41
    beit_base_patch16_224=64 caformer_s18 cait_xxs24_224=64 coat_lite_tiny=64 coat_tiny=64 convit_tiny=64 davit_tiny
    deit3_small_patch16_224=64 efficientformer_l1:224 efficientformerv2_s0:224 eva02_tiny_patch14_224=56
    focalnet_tiny_srf gcvit_xxtiny:224 gmlp_s16_224:224 hiera_tiny_224:224 levit_128s:224 mixer_s32_224:224
    mvitv2_tiny:224 nest_tiny:224 pit_ti_224:224 pvt_v2_b0 resmlp_12_224:224 sequencer2d_s
    swin_tiny_patch4_window7_224:224 swinv2_cr_tiny_224:224 swinv2_tiny_window8_256:256 tiny_vit_5m_224:224
    tnt_s_legacy_patch16_224:224 twins_pcpvt_small:224 twins_svt_small:224 vit_base_patch16_siglip_224=64
    vit_small_patch14_reg4_dinov2=56 vit_small_patch16_dinov3=64 vit_tiny_patch16_224=64 vitamin_small_224=64
    volo_d1_224:224 xcit_nano_12_p16_224:64
    test_byobnet test_coatnet=64 test_convnext test_convnext2 test_convnext3 test_efficientnet test_mambaout
    test_maxvit=64 test_nfnet test_resnet test_vit=64 test_vit2=64 test_vit3=64 test_vit_relpos=64
"""
"""timm's names. ``:size`` is a fixed size, ``=size`` one that it is built for, else the input has 64 pixels."""

FIXED_SIZES = {"maxvit_t": 224, "inception_v3": 160}


def networks() -> list[Network]:
    """All of them whose library is installed."""
    found = [*_classification(), *_segmentation(), *_video(), *_detection()]
    if installed("timm"):
        found += _timm()
    if installed("transformers"):
        found += _hugging_face()
    return found


def installed(library: str) -> bool:
    """True if it can be imported."""
    return importlib.util.find_spec(library) is not None


def _torchvision(name: str, **settings: Any) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None, **settings)


def _names(module: Any) -> list[str]:
    return torchvision.models.list_models(module=module)  # type: ignore[no-any-return]


def _classification() -> list[Network]:
    found = []
    for name in _names(torchvision.models):
        settings: dict[str, Any] = {}
        size = FIXED_SIZES.get(name, 64)
        if name in ("googlenet", "inception_v3"):
            settings = {"init_weights": False}  # which takes a minute
        if name.startswith("vit_"):
            size = 56 if name == "vit_h_14" else 64
            settings = {"image_size": size}
        found.append(Network(name, _torchvision(name, **settings), (3, size, size)))
    return found


def _segmentation() -> list[Network]:
    def person(output: Any) -> Tensor:
        scores: Tensor = output["out"][:, 15]
        return scores[:, 16:48, 16:48].mean((1, 2))

    names = _names(torchvision.models.segmentation)
    return [Network(name, _torchvision(name, weights_backbone=None), target=person) for name in names]


def _video() -> list[Network]:
    def shape(name: str) -> tuple[int, ...]:
        fixed = name == "s3d" or name.startswith("mvit")
        return (3, 16, 224, 224) if fixed else (3, 8, 64, 64)

    return [Network(name, _torchvision(name), shape(name)) for name in _names(torchvision.models.video)]


def _detection() -> list[Network]:
    target = cnnviz.targets.box(0)
    found = []
    for name in _names(torchvision.models.detection):
        settings: dict[str, Any] = {"weights_backbone": None, "num_classes": 5}
        if name == "ssd300_vgg16" or name == "ssdlite320_mobilenet_v3_large":
            settings |= {"score_thresh": 0.0, "topk_candidates": 20}
        elif "rcnn" in name:
            settings |= {"box_score_thresh": 0.0, "min_size": 128, "max_size": 128, "box_detections_per_img": 5}
        else:
            settings |= {"score_thresh": 0.0, "min_size": 128, "max_size": 128, "detections_per_img": 5}
        found.append(Network(name, _torchvision(name, **settings), (3, 128, 96), target))
    return found


def _timm() -> list[Network]:
    def build(name: str, settings: dict[str, Any]) -> Callable[[], nn.Module]:
        def built() -> nn.Module:
            import timm

            return timm.create_model(name, pretrained=False, num_classes=10, **settings)

        return built

    found = []
    for entry in TIMM.split():
        name, _, size = entry.replace("=", ":").partition(":")
        side = int(size or 64)
        settings = {"img_size": side} if "=" in entry else {}
        found.append(Network(f"timm:{name}", build(name, settings), (3, side, side)))
    return found


def _hugging_face() -> list[Network]:
    def build(model: str, config: str, **settings: Any) -> Callable[[], nn.Module]:
        def built() -> nn.Module:
            import transformers

            made = getattr(transformers, config)(**settings)
            return getattr(transformers, model)(made)  # type: ignore[no-any-return]

        return built

    def of_class(output: Any) -> Tensor:
        logits: Tensor = output.logits
        return logits[:, 1]

    def of_place(output: Any) -> Tensor:
        logits: Tensor = output.logits
        return logits[:, 1, 4:8, 4:8].mean((1, 2))

    def of_query(output: Any) -> Tensor:
        logits: Tensor = output.logits
        return logits[:, 3, 1]

    four = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
    vit: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    vit |= {"image_size": 64, "patch_size": 16}
    detr: dict[str, Any] = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "num_queries": 7}
    detr |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    detr |= {"use_timm_backbone": True, "use_pretrained_backbone": False, "backbone": "resnet18"}
    heads = {"num_attention_heads": [1, 2, 2, 4], "decoder_hidden_size": 32}
    swin = {"image_size": 64, "patch_size": 4, "embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4]}
    return [
        Network("hf:beit", build("BeitForImageClassification", "BeitConfig", **vit), target=of_class),
        Network("hf:convnext", build("ConvNextForImageClassification", "ConvNextConfig", **four), target=of_class),
        Network("hf:detr", build("DetrForObjectDetection", "DetrConfig", **detr), target=of_query),
        Network("hf:resnet", build("ResNetForImageClassification", "ResNetConfig", **four), target=of_class),
        Network(
            "hf:segformer",
            build("SegformerForSemanticSegmentation", "SegformerConfig", **four | heads),
            target=of_place,
        ),
        Network(
            "hf:swin", build("SwinForImageClassification", "SwinConfig", **swin | {"window_size": 2}), target=of_class
        ),
        Network("hf:vit", build("ViTForImageClassification", "ViTConfig", **vit), target=of_class),
    ]
