"""The attributions by family, in the order of the pages, and what each computes where code does not print it."""

from __future__ import annotations

FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "Class activation maps": (
        "The channels of one layer, weighted and added up. The map is as coarse as the layer's grid.",
        (
            *("grad_cam", "layer_cam", "hires_cam", "grad_cam_plus_plus", "xgrad_cam", "eigen_grad_cam", "eigen_cam"),
            *("cam", "score_cam", "ablation_cam", "guided_grad_cam"),
            *("relevance_cam", "lrp_cam", "excitation_backprop"),
        ),
    ),
    "Gradients": (
        "How the score changes with each pixel, or how the score is divided among the pixels. The map is as fine as "
        "the picture.",
        (
            *("gradient", "input_x_gradient", "integrated_gradients", "smoothgrad", "smoothgrad_squared", "vargrad"),
            *("guided_backprop", "deconvnet", "deeplift", "deeplift_shap", "gradient_shap", "expected_gradients"),
            *("fullgrad", "lrp"),
        ),
    ),
    "Perturbations": (
        "Parts of the picture are hidden, and the change of the score is measured. They need no gradients, and many "
        "forward passes.",
        (
            *("occlusion", "feature_ablation", "rise", "d_rise", "lime", "kernel_shap", "shapley_sampling"),
            *("extremal_perturbation", "meaningful_perturbation"),
        ),
    ),
    "Attention": (
        "Where the tokens of a vision transformer look, block by block. They need a network with attention. These maps "
        "are of the bundled `demo-transformer` and of pictures that `cnnviz demo` writes.",
        ("transformer_attribution", "attention_rollout", "grad_sam", "legrad"),
    ),
    "Inside the network": (
        "What single channels of a layer respond to, and what part of the score they have.",
        ("activation", "layer_relevance", "conditional_relevance", "projections"),
    ),
    "Two classes compared": (
        "What speaks for and against the true class and the predicted one.",
        ("saliency_confusion",),
    ),
}
"""From a family's title to a sentence about it and its methods."""

IN_WORDS: dict[str, str] = {
    "ablation_cam": "sum over channels of weight * activation; the weight is (score - score without the channel) / "
    "score",
    "score_cam": "sum over channels of weight * activation; the weight is the score of the picture seen through the "
    "channel, after a softmax over the channels",
    "d_rise": "mean over random masks of (mask * how well the box is found again in the masked picture)",
    "deeplift": "(input - baseline) * multiplier; multipliers are differences of outputs divided by differences of "
    "inputs, multiplied from layer to layer",
    "deeplift_shap": "mean of DeepLIFT over the baselines",
    "expected_gradients": "mean of (input - baseline) * gradient over baselines and places between them and the input",
    "gradient_shap": "mean of (input - baseline) * gradient over random baselines and random places, with noise",
    "integrated_gradients": "(input - baseline) * mean of the gradients at steps of the way from baseline to input",
    "feature_ablation": "for each segment: score - score with the segment replaced by the baseline",
    "occlusion": "for each pixel: mean over the windows that hide it of (score - score with the window hidden)",
    "rise": "for each pixel: mean score of the random masks that show it, compared with that of the others",
    "lime": "coefficients of a linear model of the score, fitted on pictures of which some segments are hidden",
    "kernel_shap": "coefficients of a linear model of the score, fitted with Shapley's weights, so that they are near "
    "to Shapley values",
    "shapley_sampling": "mean over random orders of the segments of the change of the score as each is shown",
    "extremal_perturbation": "a mask of a fixed area, learned so that the score of what it shows is highest",
    "meaningful_perturbation": "the smallest mask, learned so that the score falls when what it covers is hidden",
    "fullgrad": "|input * gradient| and |bias * gradient of its layer|, each scaled and enlarged, added up",
    "grad_cam_plus_plus": "sum over channels of weight * activation; the weight adds up positive gradients, each with "
    "a share that depends on the powers of the gradient",
    "lrp": "input * multiplier; multipliers are relevance divided by values, carried back from layer to layer by rules",
    "layer_relevance": "activation * multiplier, as of lrp",
    "conditional_relevance": "as lrp, of a part of the score: the sum of activation * multiplier over some channels",
    "lrp_cam": "sum over channels of weight * activation; the weight is the sum of the channel's relevance",
    "relevance_cam": "sum over channels of weight * activation; the weight is the sum of the channel's relevance for "
    "the class, less that for all others",
    "excitation_backprop": "sum over channels of relevance by positive weights alone, divided by the score",
    "attention_rollout": "product over blocks of (identity + mean attention of the heads) / 2; the row of the tokens "
    "that the score is read from",
    "transformer_attribution": "sum over ways through the blocks of the mean over heads of relu(gradient * attention)",
    "grad_sam": "mean over blocks, heads and queries of attention * relu(gradient)",
    "legrad": "mean over blocks, heads and queries of relu(gradient); the gradient is that of the block's own score",
    "projections": "for each of the strongest channels: its map alone, carried back to the picture by deconvnet",
    "saliency_confusion": "the positive and the negative part of a map for the true class, and for the predicted class",
}
"""The formulas of methods that are procedures, or whose code is longer than a line."""


def family_of(name: str) -> str | None:
    """The title of an attribution's family."""
    return next((title for title, (_, names) in FAMILIES.items() if name in names), None)
