"""What tests hold of each attribution: a sentence, and the test that measures it."""

from __future__ import annotations

Claim = tuple[str, str]

_PEERS = "tests/promises/test_peers.py"
_CAMS = "tests/plugins/test_cams.py"
_GRADIENTS = "tests/plugins/test_gradients.py"
_DERIVED = "tests/plugins/test_derived.py"
_PERTURBED = "tests/plugins/test_perturbation.py"
_POINTS = "tests/formulas/test_sample_points.py"
_BASELINES = "tests/formulas/test_baselines.py"

_PAPER: Claim = ("It is the map of the paper, computed by loops.", f"{_CAMS}::test_maps_are_those_of_the_paper")
_CAPTUM: Claim = ("It equals captum's on real networks.", f"{_PEERS}::test_captum")
_GRAD_CAM: Claim = ("It equals pytorch-grad-cam's on real networks.", f"{_PEERS}::test_grad_cam")
_TORCHCAM: Claim = ("Its positive part equals torchcam's on real networks.", f"{_PEERS}::test_torchcam")
_SIGN: Claim = (
    "But for its sign it equals pytorch-grad-cam's on real networks, with centred=True.",
    f"{_PEERS}::test_grad_cams_components_but_for_their_sign",
)
_RULE: tuple[Claim, ...] = (
    ("It equals captum's on networks whose rectifiers are all modules.", f"{_PEERS}::test_captums_rules"),
    (
        "It counts functional rectifiers too: it equals what PyTorch gives with its own functions replaced.",
        f"{_PEERS}::test_rules_by_another_way_which_captum_misses",
    ),
)
_NOISE: Claim = (
    "It is the mean, or the variance, over maps under the same noise, one by one.",
    f"{_POINTS}::test_maps_under_noise_from_the_same_draws",
)
_ERROR: Claim = (
    "Its estimates of Shapley values are as far off as its standard error says.",
    f"{_PERTURBED}::test_estimates_of_shapley_values_are_as_far_off_as_they_say",
)
_RELEVANCE = "tests/plugins/test_relevance.py"
_CONDITIONAL = "tests/plugins/test_conditional_relevance.py"
_DIVIDED: Claim = (
    "Its rules divide relevance as a table of single contributions does.",
    f"{_RELEVANCE}::test_a_rule_divides_as_a_table_of_contributions_does",
)
_LAYERS_RELEVANCE: Claim = (
    "It is made of the layer's relevance.",
    f"{_RELEVANCE}::test_maps_of_layers_are_made_of_relevance",
)
_ATTENTION = "tests/plugins/test_attention.py"
_LOOPS: Claim = (
    "It is what loops make of shares that were recorded by hand.",
    f"{_ATTENTION}::test_maps_equal_what_loops_make_of_shares_that_were_recorded_by_hand",
)
CLAIMS: dict[str, tuple[Claim, ...]] = {
    "lrp": (
        _DIVIDED,
        (
            "What biases and the stabilizer took completes the score.",
            f"{_RELEVANCE}::test_what_biases_and_the_stabilizer_took_completes_the_score",
        ),
        ("It equals zennit's on networks that were folded by hand.", f"{_RELEVANCE}::test_composites_are_zennits"),
        (
            "With CP-LRP it is input x gradient of a transformer that holds shares, curves and deviations constant.",
            "tests/plugins/test_relevance_of_attention.py"
            "::test_cp_lrp_is_input_x_gradient_where_shares_curves_and_deviations_are_constants",
        ),
        (
            "With AttnLRP it is what products that are halved by hand give.",
            "tests/plugins/test_relevance_of_attention.py::test_attn_lrp_halves_the_products_of_an_attention",
        ),
    ),
    "attention_rollout": (
        ("It is the closed form of two layers.", f"{_ATTENTION}::test_rollout_of_two_layers_in_closed_form"),
        _LOOPS,
    ),
    "transformer_attribution": (
        ("It is the closed form of two layers.", f"{_ATTENTION}::test_chefer_of_two_layers_in_closed_form"),
        _LOOPS,
    ),
    "grad_sam": (_LOOPS,),
    "legrad": (
        (
            "Its gradients are those of the head on each block's tokens.",
            f"{_ATTENTION}::test_legrad_equals_gradients_of_the_head_on_each_blocks_tokens",
        ),
    ),
    "layer_relevance": (_DIVIDED, _LAYERS_RELEVANCE),
    "conditional_relevance": (
        (
            "It is relevance that is masked at the layer, as zennit-crp takes it.",
            f"{_CONDITIONAL}::test_a_masked_backward_pass_of_zennit_gives_the_same",
        ),
        (
            "What all channels give sums to the whole.",
            f"{_CONDITIONAL}::test_all_channels_together_are_the_whole",
        ),
    ),
    "lrp_cam": (_LAYERS_RELEVANCE,),
    "relevance_cam": (_LAYERS_RELEVANCE,),
    "excitation_backprop": (
        (
            "It follows its formula, the contrastive one too.",
            f"{_RELEVANCE}::test_excitation_backprop_and_its_contrast",
        ),
        ("It equals zennit's.", f"{_RELEVANCE}::test_excitation_backprop_is_zennits"),
    ),
    "grad_cam": (_PAPER, _CAPTUM, _GRAD_CAM, _TORCHCAM),
    "grad_cam_plus_plus": (_PAPER, _GRAD_CAM),
    "xgrad_cam": (_PAPER, _GRAD_CAM, _TORCHCAM),
    "hires_cam": (_PAPER, _GRAD_CAM),
    "layer_cam": (_PAPER, _GRAD_CAM, _TORCHCAM),
    "eigen_cam": (_PAPER, _SIGN),
    "eigen_grad_cam": (_PAPER, _SIGN),
    "cam": (
        ("It weighs channels by the classifier's weights.", f"{_CAMS}::test_cam_weighs_channels_by_the_classifier"),
        ("It equals torchcam's on networks that average.", f"{_PEERS}::test_torchcams_cam"),
        ("Other networks are refused.", f"{_CAMS}::test_cam_refuses_networks_that_do_not_average"),
    ),
    "score_cam": (
        ("It is the same channel by channel, by loops.", f"{_PERTURBED}::test_score_cam_channel_by_channel"),
        ("It equals pytorch-grad-cam's.", f"{_PERTURBED}::test_pytorch_grad_cams_score_cam"),
        ("It equals torchcam's.", f"{_PERTURBED}::test_torchcams_score_cam"),
    ),
    "ablation_cam": (
        ("It is the same channel by channel, by loops.", f"{_PERTURBED}::test_ablation_cam_channel_by_channel"),
        ("It equals pytorch-grad-cam's.", f"{_PERTURBED}::test_pytorch_grad_cams_ablation_cam"),
    ),
    "guided_grad_cam": (
        (
            "It is guided backprop where Grad-CAM is positive.",
            f"{_DERIVED}::test_guided_grad_cam_is_guided_backprop_where_grad_cam_is_positive",
        ),
        _RULE[0],
    ),
    "gradient": (
        (
            "It is the slope of the score, by finite differences.",
            f"{_GRADIENTS}::test_gradient_is_the_slope_of_the_score",
        ),
        _CAPTUM,
    ),
    "input_x_gradient": (
        (
            "Of a linear network its values sum to the score.",
            f"{_GRADIENTS}::test_input_x_gradient_of_a_linear_network_is_the_score",
        ),
        _CAPTUM,
    ),
    "integrated_gradients": (
        ("Its values sum to the difference of the scores.", f"{_POINTS}::test_completeness_of_trained_networks"),
        ("It is exact for polynomials of the input.", f"{_POINTS}::test_gauss_legendre_is_exact_for_polynomials"),
        ("It equals captum's on real networks.", f"{_PEERS}::test_captums_integrated_gradients"),
    ),
    "smoothgrad": (
        _NOISE,
        ("Without noise it is the gradient.", f"{_POINTS}::test_no_noise_is_the_gradient"),
    ),
    "smoothgrad_squared": (_NOISE,),
    "vargrad": (_NOISE,),
    "guided_backprop": _RULE,
    "deconvnet": _RULE,
    "deeplift": (
        (
            "It is the paper's, by matrices and loops.",
            "tests/plugins/test_deeplift.py::test_it_is_the_paper_s_by_matrices_and_loops",
        ),
        (
            "Its values sum to the difference of the scores.",
            "tests/plugins/test_deeplift.py::test_attributions_of_a_trained_network_add_up",
        ),
        ("It agrees with captum where captum works.", "tests/plugins/test_deeplift.py::test_it_agrees_with_captum"),
    ),
    "deeplift_shap": (
        ("It is the mean of DeepLIFT over the baselines.", f"{_BASELINES}::test_deeplift_shap_is_the_mean_of_deeplift"),
    ),
    "gradient_shap": (
        (
            "Of a linear network it is the difference times the weight.",
            f"{_BASELINES}::test_gradient_shap_of_a_linear_network_is_the_difference_times_the_weight",
        ),
    ),
    "expected_gradients": (
        (
            "It is exact where all baselines come equally often.",
            f"{_BASELINES}::test_expected_gradients_of_all_baselines_equally_often_are_exact",
        ),
    ),
    "fullgrad": (
        ("All of its parts sum to the score.", "tests/plugins/test_fullgrad.py::test_completeness_of_trained_networks"),
    ),
    "occlusion": (
        ("It is the same window by window, by loops.", f"{_PERTURBED}::test_occlusion_window_by_window"),
        ("It equals captum's.", f"{_PERTURBED}::test_captums_occlusion"),
    ),
    "feature_ablation": (
        ("It is the same piece by piece, by loops.", f"{_PERTURBED}::test_feature_ablation_piece_by_piece"),
        ("It equals captum's.", f"{_PERTURBED}::test_captums_feature_ablation"),
    ),
    "rise": (
        ("It is the mean of masks drawn by hand.", f"{_PERTURBED}::test_rise_is_the_mean_of_masks_drawn_by_hand"),
        ("It spreads as its standard error says.", f"{_PERTURBED}::test_rise_spreads_as_it_says"),
    ),
    "d_rise": (("It is a loop over the masks.", "tests/run/test_boxes.py::test_d_rise_is_a_loop_over_masks"),),
    "lime": (
        (
            "It is a weighted ridge regression of its samples.",
            f"{_PERTURBED}::test_lime_is_a_weighted_ridge_regression_of_its_samples",
        ),
        ("Its coefficients spread as they say.", f"{_PERTURBED}::test_limes_coefficients_spread_as_they_say"),
    ),
    "kernel_shap": (
        ("It is exact where all subsets fit.", f"{_PERTURBED}::test_kernel_shap_is_exact_where_all_subsets_fit"),
        _ERROR,
    ),
    "shapley_sampling": (
        ("All orders together give Shapley values.", f"{_PERTURBED}::test_all_orders_together_give_shapley_values"),
        _ERROR,
    ),
    "extremal_perturbation": (
        (
            "Its mask keeps what the class needs.",
            f"{_PERTURBED}::test_extremal_perturbation_keeps_what_the_class_needs",
        ),
    ),
    "meaningful_perturbation": (
        (
            "Its mask hides what the class needs.",
            f"{_PERTURBED}::test_meaningful_perturbation_destroys_what_the_class_needs",
        ),
    ),
    "activation": (
        (
            "They are what the layer gives.",
            "tests/plugins/test_renderers.py::test_activations_are_what_the_layer_gives",
        ),
    ),
    "projections": (
        (
            "They equal the transposed network of the paper.",
            "tests/plugins/test_projections.py::test_projections_equal_the_transposed_network",
        ),
    ),
    "saliency_confusion": (
        (
            "It is both signs of the target's map and of the prediction's.",
            f"{_DERIVED}::test_saliency_confusion_is_both_signs_of_target_and_prediction",
        ),
    ),
}
