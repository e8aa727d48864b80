"""Rules and biases meet what attention and recurrent networks consist of, and nothing else of them changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import randomized, scores, slopes
from torch import Tensor, nn

from cnnviz import Call, explain, gradient, rule
from cnnviz.engine.written_out import composite

TARGET = [2, 0]
METHODS = ("deeplift", "fullgrad")


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def keeping(*operations: Any) -> tuple[Any, list[Call]]:
    """A rule that changes nothing, and the calls that it met."""
    met: list[Call] = []

    def keep(call: Call, grad: Tensor) -> tuple[Tensor, ...]:
        met.append(call)
        return call.vjps(grad)

    return rule(*operations, name="keeping")(keep), met


class Attending(nn.Module):
    """Steps of (N, 8, T) that attend to each other; the head reads both what comes out and, if asked, the weights."""

    def __init__(self, settings: dict[str, Any], call: dict[str, Any]) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, **settings)
        self.head = nn.Linear(8, 3)
        randomized(self, 3)
        self.settings, self.call = settings, call
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        query = x.permute(2, 0, 1)
        key = (query + 1)[..., : self.settings.get("kdim", 8)]
        value = query.sin()[..., : self.settings.get("vdim", 8)]
        if self.settings.get("batch_first"):
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        attended, weights = self.attention(query, key, value, **self.call)
        attended = attended.transpose(0, 1) if not self.settings.get("batch_first") else attended
        scores = self.head(attended.mean(1))
        if weights is None:
            return scores
        return scores + weights.flatten(1).square().sum(1)[:, None]


PADDED = torch.zeros(2, 5, dtype=torch.bool)
PADDED[1, 3:] = True
CAUSAL = nn.Transformer.generate_square_subsequent_mask(5).double()
ATTENTION: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {"need_weights": False}),
    "weights": ({}, {}),
    "weights of each head": ({"batch_first": True}, {"average_attn_weights": False}),
    "batch first": ({"batch_first": True}, {"need_weights": False}),
    "padded": ({}, {"need_weights": False, "key_padding_mask": PADDED}),
    "padded, weights": ({}, {"key_padding_mask": PADDED}),
    "masked": ({}, {"need_weights": False, "attn_mask": CAUSAL}),
    "causal": ({}, {"need_weights": False, "attn_mask": CAUSAL, "is_causal": True}),
    "masked for each head": ({}, {"attn_mask": CAUSAL.expand(4, 5, 5)}),
    "other widths": ({"kdim": 6, "vdim": 4}, {"need_weights": False}),
    "more keys": ({"add_bias_kv": True, "add_zero_attn": True}, {}),
    "no biases": ({"bias": False}, {"need_weights": False}),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_what_it_was_and_its_operations_are_met(name: str) -> None:
    net, x = Attending(*ATTENTION[name]), drawn(2, 8, 5)
    expected = torch.autograd.grad(net(leaf := x.clone().requires_grad_())[[0, 1], TARGET].sum(), leaf)[0]
    weighed = ATTENTION[name][1].get("need_weights", True)
    unchanged, met = keeping(F.softmax if weighed else F.scaled_dot_product_attention)
    found = explain(net, x, gradient(rule=unchanged), target=TARGET)
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(found.score, net(x)[[0, 1], TARGET].detach(), rtol=0, atol=1e-13)
    assert len(met) == 1


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("method", METHODS)
def test_attention_adds_up(name: str, method: str) -> None:
    net, x = Attending(*ATTENTION[name]), drawn(2, 8, 5)
    assert explain(net, x, method, target=TARGET).notes["completeness_gap"].abs().max() < 1e-10


def test_deeplift_through_attention_is_that_of_its_operations_written_by_hand() -> None:
    net, x, b = Attending({}, {"need_weights": False}), drawn(2, 8, 5), drawn(2, 8, 5, seed=4)

    class ByHand(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            query, attention = x.mT, net.attention
            given = query, query + 1, query.sin()
            pairs = zip(given, attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
            heads = (F.linear(*each).unflatten(2, (2, 4)).transpose(1, 2) for each in pairs)
            mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
            return net.head(attention.out_proj(mixed).mean(1))

    found, by_hand = (explain(each.eval(), x, "deeplift", target=TARGET, baseline=b).values for each in (net, ByHand()))
    torch.testing.assert_close(found, by_hand, rtol=0, atol=1e-12)
    assert by_hand.abs().max() > 1e-2


class Encoder(nn.Module):
    def __init__(self, **settings: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **settings)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)
        randomized(self, 5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x.mT, src_key_padding_mask=PADDED).mean(1))


@pytest.mark.parametrize("settings", [{}, {"norm_first": True}, {"activation": "gelu"}], ids=str)
def test_an_encoder_adds_up_with_and_without_gradients_of_its_weights(settings: dict[str, Any]) -> None:
    net, x = Encoder(**settings), drawn(2, 8, 5)
    trained = {method: explain(net, x, method, target=TARGET) for method in (*METHODS, "gradient")}
    net.requires_grad_(False)  # so that torch's fused pass would be taken
    for method, expected in trained.items():
        found = explain(net, x, method, target=TARGET)
        torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-12)
        gap = found.notes.get("completeness_gap", torch.zeros(1))
        assert gap.abs().max() < 1e-9


# Recurrent networks


class Recurrent(nn.Module):
    """A recurrent network over the steps of (N, 4, T); the head reads every step and all states at the end."""

    def __init__(self, kind: str, settings: dict[str, Any]) -> None:
        super().__init__()
        self.recurrent = getattr(nn, kind)(4, 5, **settings)
        ways = 2 if settings.get("bidirectional") else 1
        size = settings.get("proj_size") or 5
        self.head = nn.Linear(ways * size, 3)
        randomized(self, 6)
        self.settings = settings
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        steps = x.mT if self.settings.get("batch_first") else x.permute(2, 0, 1)
        outputs, states = self.recurrent(steps)
        outputs = outputs if self.settings.get("batch_first") else outputs.transpose(0, 1)
        ends = sum(each.square().sum((0, 2)) for each in (states if isinstance(states, tuple) else (states,)))
        return self.head(outputs.mean(1)) + ends[:, None]


class Cells(nn.Module):
    def __init__(self, kind: str, settings: dict[str, Any]) -> None:
        super().__init__()
        self.cell = getattr(nn, kind)(4, 5, **settings)
        self.head = nn.Linear(5, 3)
        randomized(self, 6)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        states = None
        for step in x.unbind(2):
            states = self.cell(step, states)
        return self.head(states[0] if isinstance(states, tuple) else states)


RECURRENT: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {}),
    "lstm-deep": ("LSTM", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    "lstm-projected": ("LSTM", {"proj_size": 3, "num_layers": 2}),
    "lstm-unbiased": ("LSTM", {"bias": False, "dropout": 0.5, "num_layers": 2}),
    "gru": ("GRU", {"batch_first": True}),
    "gru-deep": ("GRU", {"num_layers": 2, "bidirectional": True}),
    "rnn": ("RNN", {"bidirectional": True}),
    "rnn-relu": ("RNN", {"nonlinearity": "relu"}),
    "lstm-cell": ("LSTMCell", {}),
    "gru-cell": ("GRUCell", {"bias": False}),
    "rnn-cell": ("RNNCell", {}),
    "rnn-relu-cell": ("RNNCell", {"nonlinearity": "relu"}),
}


def recurrent(name: str) -> nn.Module:
    return (Cells if name.endswith("cell") else Recurrent)(*RECURRENT[name])


@pytest.mark.parametrize("name", RECURRENT)
def test_a_recurrent_network_is_what_it_was_and_its_gates_are_met(name: str) -> None:
    net, x = recurrent(name), drawn(2, 4, 6)
    curve = F.relu if "relu" in name else torch.tanh
    unchanged, met = keeping(curve)
    found = explain(net, x, gradient(rule=unchanged), target=TARGET)
    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(net(leaf)[[0, 1], TARGET].sum(), leaf)[0]
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.score, net(x)[[0, 1], TARGET].detach(), rtol=0, atol=1e-12)
    assert len(met) >= 6  # once a step, or more often


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("method", METHODS)
def test_a_recurrent_network_adds_up(name: str, method: str) -> None:
    net, x = recurrent(name), drawn(2, 4, 6)
    assert explain(net, x, method, target=TARGET).notes["completeness_gap"].abs().max() < 1e-9


@pytest.mark.parametrize("rule_of", ["guided_backprop", "deconvnet"])
def test_rectifiers_inside_a_recurrent_network_follow_their_rule(rule_of: str) -> None:
    net, x = Recurrent("RNN", {"nonlinearity": "relu"}), drawn(2, 4, 6)

    class ByHand(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            of = net.recurrent
            hidden, outputs = x.new_zeros(len(x), 5), []
            for step in x.unbind(2):
                given = F.linear(step, of.weight_ih_l0, of.bias_ih_l0)
                hidden = F.relu(given + F.linear(hidden, of.weight_hh_l0, of.bias_hh_l0))
                outputs.append(hidden)
            return net.head(torch.stack(outputs, 1).mean(1)) + hidden.square().sum(1)[:, None]

    found, by_hand = (explain(each.eval(), x, rule_of, target=TARGET).values for each in (net, ByHand()))
    torch.testing.assert_close(found, by_hand, rtol=0, atol=1e-12)
    assert not torch.allclose(found, slopes(scores(net, TARGET), x), atol=1e-3)


@pytest.mark.parametrize("settings", [{}, {"bidirectional": True, "num_layers": 2}], ids=("one way", "both ways"))
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_sequences_of_several_lengths_are_what_they_were(kind: str, settings: dict[str, Any]) -> None:
    net = randomized(getattr(nn, kind)(4, 5, **settings), 7)
    packed = nn.utils.rnn.pack_padded_sequence(drawn(6, 4, 4), torch.tensor([6, 4, 4, 1]))
    states = drawn(2 * net.num_layers if net.bidirectional else 1, 4, 5, seed=3)
    given = (states, states.cos()) if kind == "LSTM" else states
    operation = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN": torch.rnn_tanh}[kind]
    arguments = (given, net._flat_weights, True, net.num_layers, 0.0, False, net.bidirectional)
    whole = composite(operation)
    assert whole is not None
    found = whole.run(packed.data, packed.batch_sizes, *arguments)
    for tensor, expected in zip(found, operation(packed.data, packed.batch_sizes, *arguments), strict=True):
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_a_packed_sequence_adds_up(method: str) -> None:
    class Packed(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            steps = nn.utils.rnn.pack_padded_sequence(x.mT, torch.tensor([5]), True)
            outputs, (hidden, _) = self.recurrent(steps)
            return (
                self.head(nn.utils.rnn.pad_packed_sequence(outputs)[0].mean(0)) + hidden.square().sum((0, 2))[:, None]
            )

    net = Packed("LSTM", {"bidirectional": True})
    assert explain(net, drawn(1, 4, 6), method, target=1).notes["completeness_gap"].abs().max() < 1e-9
