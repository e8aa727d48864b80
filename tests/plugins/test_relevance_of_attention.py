"""Relevance through attentions beside input x gradient of networks that hold constant what the rule does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnviz import explain
from cnnviz_plugins.relevance import composite, epsilon

TARGET = 1
SPELLINGS = ["module", "fused", "matmul", "einsum"]


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Attending(nn.Module):
    """Patches, a class token and two blocks of attention, by one of several spellings of it.

    ``detached`` holds constant what a method of relevance holds constant: then input x gradient is that relevance.
    """

    def __init__(self, spelling: str = "module", detached: bool = False) -> None:
        super().__init__()
        self.spelling, self.detached = spelling, detached
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.patches = nn.Conv2d(2, 8, 2, 2)
            self.token = nn.Parameter(torch.randn(1, 1, 8))
            self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(4))
            self.attentions = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))
            self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
            self.head = nn.Linear(8, 3)
            for norm in self.norms:
                nn.init.normal_(norm.weight)

    def held(self, values: Tensor) -> Tensor:
        return values.detach() if self.detached else values

    def norm(self, number: int, x: Tensor) -> Tensor:
        layer: Any = self.norms[number]
        if not self.detached:
            return layer(x)  # type: ignore[no-any-return]
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt()
        return centred / deviation.detach() * layer.weight + layer.bias  # type: ignore[no-any-return]

    def attend(self, number: int, x: Tensor) -> Tensor:
        layer: Any = self.attentions[number]
        if self.spelling == "module":
            return layer(x, x, x, need_weights=False)[0]  # type: ignore[no-any-return]
        q, k, v = F.linear(x, layer.in_proj_weight, layer.in_proj_bias).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        if self.spelling == "fused":
            read = F.scaled_dot_product_attention(q, k, v)
        else:
            shares = self.held((q @ k.transpose(-2, -1) / 2).softmax(-1))
            read = torch.einsum("bhqk,bhkd->bhqd", shares, v) if self.spelling == "einsum" else shares @ v
        return layer.out_proj(read.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for block in range(2):
            x = x + self.attend(block, self.norm(2 * block, x))
            inner = self.layers[2 * block](self.norm(2 * block + 1, x))
            curved = inner * self.held(F.gelu(inner) / inner) if self.detached else F.gelu(inner)
            x = x + self.layers[2 * block + 1](curved)
        return self.head(x[:, 0])  # type: ignore[no-any-return]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_cp_lrp_is_input_x_gradient_where_shares_curves_and_deviations_are_constants(spelling: str) -> None:
    x = drawn(2, 2, 6, 6).requires_grad_()
    reference = Attending("matmul", detached=True).double().eval()
    (grad,) = torch.autograd.grad(reference(x)[:, TARGET].sum(), x)
    asked = Attending(spelling).double().eval()
    linear = composite(conv=epsilon(0), linear=epsilon(0))
    found = explain(asked, x.detach(), "lrp", target=TARGET, composite=linear, attention="cp_lrp")
    torch.testing.assert_close(found.values, (x * grad).detach())


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_attn_lrp_halves_the_products_of_an_attention(spelling: str) -> None:
    class Single(nn.Module):
        def forward(self, q: Tensor) -> Tensor:
            tokens = q.flatten(2).transpose(1, 2)
            keys, values = tokens * 0.5, tokens * 2
            if spelling in ("module", "fused"):
                read = F.scaled_dot_product_attention(tokens, keys, values)
            else:
                shares = (tokens @ keys.transpose(1, 2) * 3**-0.5).softmax(-1)
                read = torch.einsum("nqk,nkd->nqd", shares, values) if spelling == "einsum" else shares @ values
            return read[:, 0, :2]

    x = drawn(1, 3, 2, 2)
    tokens = x.flatten(2).transpose(1, 2)[0]
    logits = tokens[0] @ (tokens * 0.5).T * 3**-0.5
    shares = logits.softmax(0)
    score = shares @ tokens[:, TARGET] * 2
    relevance = torch.zeros_like(tokens)
    relevance[:, TARGET] += shares * tokens[:, TARGET]  # half of each product of a share and a value
    at_shares = shares * tokens[:, TARGET]  # the other half; through the softmax: x * (R - s * sum R)
    at_logits = logits * (at_shares - shares * at_shares.sum())
    for key in range(4):
        parts = tokens[0] * tokens[key] * 0.5 * 3**-0.5
        relevance[key] += at_logits[key] * parts / logits[key] / 2
        relevance[0] += at_logits[key] * parts / logits[key] / 2
    found = explain(Single().eval(), x, "lrp", target=TARGET)
    torch.testing.assert_close(found.score, score[None])
    torch.testing.assert_close(found.values.flatten(2).transpose(1, 2)[0], relevance)


Way = Callable[[Tensor, Tensor], Tensor]
Attend = Callable[[nn.ParameterDict, Tensor, Tensor, Tensor], Tensor]
Written = Callable[[nn.ParameterDict, Tensor, Tensor, Tensor, Way], Tensor]
MAY_READ = torch.ones(7, 7, dtype=torch.bool).tril().flip(0)


class Spelled(nn.Module):
    """Tokens, a class token, and two attentions by a function of the queries, keys and values."""

    def __init__(self, attend: Attend):
        super().__init__()
        self.attend = attend
        self.patches, self.parts, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 24), nn.Linear(8, 3)
        shapes = {"token": (1, 1, 8), "table": (2, 7, 7), "heads": (2, 2)}
        self.more = nn.ParameterDict({name: torch.zeros(shape) for name, shape in shapes.items()})
        generator = torch.Generator().manual_seed(2)
        for values in self.double().eval().parameters():
            nn.init.normal_(values, 0, 0.5, generator)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.more["token"].expand(len(x), -1, -1), x], 1)
        for _ in range(2):
            query, key, value = self.parts(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
            x = x + self.attend(self.more, query, key, value).transpose(1, 2).flatten(2)
        return self.head(x[:, 0])  # type: ignore[no-any-return]


def halves(one: Tensor, other: Tensor) -> Tensor:
    """The product, of whose gradient each factor gets half."""
    return (one @ other.detach() + one.detach() @ other) / 2


def plain(more: Any, query: Tensor, key: Tensor, value: Tensor, product: Way) -> Tensor:
    return (product(query, key.mT) / 2).softmax(-1)


def masked(more: Any, query: Tensor, key: Tensor, value: Tensor, product: Way) -> Tensor:
    return (product(query, key.mT) / 2).masked_fill(~MAY_READ, -torch.inf).softmax(-1)


def biased(more: Any, query: Tensor, key: Tensor, value: Tensor, product: Way) -> Tensor:
    return (product(query, key.mT) / 2 + more["table"]).softmax(-1)


def doubled(more: Any, query: Tensor, key: Tensor, value: Tensor, product: Way) -> Tensor:
    return plain(more, query, key, value, product) * 2


def reweighed(more: Any, query: Tensor, key: Tensor, value: Tensor, product: Way) -> Tensor:
    return plain(more, query, key, value, product) * more["table"]


def talking(more: Any, query: Tensor, key: Tensor, value: Tensor, product: Way) -> Tensor:
    return F.linear(plain(more, query, key, value, product).movedim(1, -1), more["heads"]).movedim(-1, 1)


def differential(more: Any, query: Tensor, key: Tensor, value: Tensor, product: Way) -> Tensor:
    return plain(more, query, key, value, product) - 0.3 * plain(more, key, query, value, product)


def twice(more: Any, query: Tensor, key: Tensor, value: Tensor, product: Way) -> Tensor:
    return product(plain(more, query, key, value, product), plain(more, key, query, value, product))


def by_matmul(shares: Written) -> Attend:
    return lambda more, query, key, value: shares(more, query, key, value, torch.matmul) @ value


def at_once(mask: Callable[[Any], Any] = lambda more: None) -> Attend:
    return lambda more, *operands: F.scaled_dot_product_attention(*operands, attn_mask=mask(more))


def queries_last(more: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (value.mT @ (key @ query.mT / 2).softmax(-2)).mT


def by_einsum(more: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    shares = torch.einsum("...id,...jd->...ij", query, key).div(2).softmax(-1)
    return torch.einsum("bhjd,bhij->bhid", [value, shares])


def by_sums(more: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value, zero = *(each.flatten(0, 1) for each in (query, key, value)), torch.zeros(1).double()
    shares = torch.baddbmm(zero, query, key.mT, alpha=0.5).softmax(-1)
    return torch.baddbmm(zero, F.dropout(shares, 0.4, False), value).unflatten(0, (2, 2))


def by_values(more: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return ((query @ key.mT / 2).softmax(-1)[..., None] * value[:, :, None]).sum(-2)


SPELLED: dict[str, tuple[Attend, Written]] = {
    **{shares.__name__: (by_matmul(shares), shares) for shares in (plain, masked, biased, doubled, reweighed)},
    **{shares.__name__: (by_matmul(shares), shares) for shares in (talking, differential, twice)},
    "at once": (at_once(), plain),
    "at once, masked": (at_once(lambda more: MAY_READ), masked),
    "at once, biased": (at_once(lambda more: more["table"]), biased),
    **{attend.__name__: (attend, plain) for attend in (queries_last, by_einsum, by_sums, by_values)},
}


@pytest.mark.parametrize("name", SPELLED)
def test_relevance_is_input_x_gradient_of_products_with_half_a_gradient_or_of_constant_shares(name: str) -> None:
    attend, shares = SPELLED[name]

    def halved(more: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return halves(shares(more, query, key, value, halves), value)

    def constant(more: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return shares(more, query, key, value, torch.matmul).detach() @ value

    x, linear = drawn(2, 3, 8, 12), composite(conv=epsilon(0), linear=epsilon(0))
    for attention, written in (("attn_lrp", halved), ("cp_lrp", constant)):
        given = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(Spelled(written)(given)[:, TARGET].sum(), given)
        found = explain(Spelled(attend), x, "lrp", target=TARGET, composite=linear, attention=attention).values
        torch.testing.assert_close(found, x * grad, rtol=1e-6, atol=1e-9)


def test_a_softmax_of_the_input_itself_gives_no_shares() -> None:
    class Normalized(Spelled):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.softmax(1))

    x, linear = drawn(2, 3, 8, 12), composite(conv=epsilon(0), linear=epsilon(0))
    given = x.clone().requires_grad_()
    reference = Normalized(lambda *operands: plain(*operands, torch.matmul).detach() @ operands[3])
    (grad,) = torch.autograd.grad(reference(given)[:, TARGET].sum(), given)
    found = explain(Normalized(at_once()), x, "lrp", target=TARGET, composite=linear, attention="cp_lrp").values
    torch.testing.assert_close(found, x * grad, rtol=1e-6, atol=1e-9)


def test_attention_is_one_of_two_rules_and_a_product_of_others_is_halved() -> None:
    class Squared(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.flatten(2) @ x.flatten(2).transpose(1, 2)).flatten(1)

    x = drawn(1, 2, 3, 3)
    for attention in ("attn_lrp", "cp_lrp"):
        found = explain(Squared().eval(), x, "lrp", target=1, attention=attention)
        torch.testing.assert_close(found.values.sum((1, 2, 3)), found.score)
    with pytest.raises(ValueError, match="attention='lrp'; it is 'attn_lrp' or 'cp_lrp'"):
        explain(Squared().eval(), x, "lrp", target=1, attention="lrp")
