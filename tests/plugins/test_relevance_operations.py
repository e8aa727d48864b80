"""Relevance at operations of all kinds: however one is spelled, the same relevance, and the sum that it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnviz import Preprocessing, Rule, explain
from cnnviz_plugins.relevance import alpha_beta, composite, epsilon, flat, gamma, w_square, z_box, z_plus

ZERO = composite(conv=epsilon(0), linear=epsilon(0))


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


WEIGHT, OTHER = drawn(6, 3, seed=2), drawn(6, 6, 6, seed=3)


class Written(nn.Module):
    """A function of (N, 6), weighted into three scores."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x) @ WEIGHT


def relevance(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return explain(Written(function).eval(), x, "lrp", composite=ZERO, target=1).values


def outer(x: Tensor) -> Tensor:
    return torch.stack([(torch.outer(row, row) * OTHER).sum((1, 2)) for row in x])


def gone_over(x: Tensor) -> Tensor:
    return torch.cat([x[:, :3].cumprod(1), x[:, 3:].prod(1, keepdim=True).expand(-1, 3)], 1)


SAME: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "normalize": (F.normalize, lambda x: x / x.norm(dim=1, keepdim=True)),
    "cosine": (
        lambda x: F.cosine_similarity(x[:, None], OTHER[0][None], dim=2),
        lambda x: (x / x.norm(dim=1, keepdim=True)) @ (OTHER[0] / OTHER[0].norm(dim=1, keepdim=True)).T,
    ),
    "dot": (lambda x: torch.stack([torch.dot(row, row) * row for row in x]), lambda x: (x * x).sum(1, True) * x),
    "inner": (lambda x: torch.inner(x, OTHER[0]), lambda x: x @ OTHER[0].T),
    "tensordot": (lambda x: torch.tensordot(x, OTHER[0], dims=1), lambda x: x @ OTHER[0]),
    "tensordot by name": (lambda x: torch.tensordot(b=OTHER[0], a=x, dims=1), lambda x: x @ OTHER[0]),
    "vecdot": (lambda x: torch.linalg.vecdot(x[:, None], OTHER[0][None]), lambda x: x @ OTHER[0].T),
    "outer": (
        lambda x: torch.stack([(torch.outer(row, row) * OTHER).sum((1, 2)) for row in x]),
        lambda x: torch.einsum("ni,nj,kij->nk", x, x, OTHER),
    ),
    "addr": (
        lambda x: torch.stack([torch.addr(OTHER[0], row, row).sum(1) for row in x]),
        lambda x: (x[:, :, None] * x[:, None] + OTHER[0]).sum(2),
    ),
    "variance": (
        lambda x: x.reshape(-1, 2, 3).var(2).repeat(1, 3),
        lambda x: ((c := x.reshape(-1, 2, 3) - x.reshape(-1, 2, 3).mean(2, True)) * c).sum(2).repeat(1, 3) / 2,
    ),
    "lerp": (lambda x: torch.lerp(x, 2 * x, x.sigmoid()), lambda x: x + x.sigmoid().detach() * x),
    "addcdiv": (lambda x: torch.addcdiv(x, x, 2 + x.cos(), value=3), lambda x: x + 3 * x / (2 + x.cos())),
    "pool of squares": (
        lambda x: F.lp_pool1d(x[:, None], 2.0, 2)[:, 0].repeat(1, 2),
        lambda x: x.reshape(-1, 3, 2).square().sum(2).sqrt().repeat(1, 2),
    ),
    "response": (
        lambda x: F.local_response_norm(x[:, :, None], 1, alpha=0.5, k=2)[:, :, 0],
        lambda x: x / (2 + x.square().detach() / 2) ** 0.75,
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_other_spellings_of_an_operation_have_its_relevance(name: str) -> None:
    x = drawn(2, 6)
    spelled, plain = SAME[name]
    torch.testing.assert_close(spelled(x), plain(x))
    torch.testing.assert_close(relevance(spelled, x), relevance(plain, x), rtol=1e-9, atol=1e-12)


def test_a_product_of_many_gives_each_factor_the_same() -> None:
    x = drawn(1, 6)
    parts = gone_over(x)[0] * WEIGHT[:, 1]
    first = [parts[0] + parts[1] / 2 + parts[2] / 3, parts[1] / 2 + parts[2] / 3, parts[2] / 3]
    expected = torch.stack([*first, *[parts[3:].sum() / 3] * 3])
    torch.testing.assert_close(relevance(gone_over, x)[0], expected)


@pytest.mark.parametrize("curve", [torch.tan, torch.sinh, torch.round, torch.sign, torch.frac, torch.erfc, torch.logit])
def test_a_curve_passes_all_on(curve: Callable[[Tensor], Tensor]) -> None:
    x = drawn(2, 6).sigmoid()
    torch.testing.assert_close(relevance(curve, x), curve(x) * WEIGHT[:, 1])


def test_a_constant_denominator_only_scales() -> None:
    x = drawn(1, 6)
    x[0, 2] = 0.5  # so that what is divided is zero
    torch.testing.assert_close(relevance(lambda x: (x - 0.5) / OTHER[0, 0], x), x / OTHER[0, 0] * WEIGHT[:, 1])


@pytest.mark.parametrize("added", [lambda y, b: y + b, lambda y, b: b - (-y), lambda y, b: y.clone().add_(b)])
def test_a_bias_is_left_out_however_it_is_added(added: Callable[[Tensor, Tensor], Tensor]) -> None:
    x, bias = drawn(2, 6), drawn(6, seed=4)
    written, layer = (
        explain(Written(function).eval(), x, "lrp", target=1, bias="ignore").values
        for function in (lambda x: added(x @ OTHER[0].T, bias).relu(), lambda x: F.linear(x, OTHER[0], bias).relu())
    )
    torch.testing.assert_close(written, layer, rtol=1e-4, atol=1e-6)  # a stabilizer each


FACTORS: dict[str, Callable[[Tensor], Tensor]] = {
    "bilinear": lambda x: F.bilinear(x, x[:, :2], OTHER[:, :, :2], WEIGHT[:, 0]),
    "weights of the input": lambda x: F.linear(x[:, :2], x[0].outer(x[0, :2]), WEIGHT[:, 0]),
    "a bias of the input": lambda x: F.linear(x, OTHER[0], x[0] * 2),
    "all of the input": lambda x: F.linear(x, x[0].outer(x[0]), x[0]),
    "of complex numbers": lambda x: torch.fft.ifft(torch.fft.fft(x) * OTHER[0, 0]).real + WEIGHT[:, 0],
}


@pytest.mark.parametrize("product", ["gate", "halves"])
@pytest.mark.parametrize("name", FACTORS)
def test_products_that_add_a_bias_tell_of_it(name: str, product: str) -> None:
    x, net = drawn(1, 6), Written(FACTORS[name]).eval()
    found = explain(net, x, "lrp", composite=ZERO, target=1, bias="report", product=product)
    taken = (WEIGHT[:, 0] * WEIGHT[:, 1]).sum() if "bias of" not in name and "all" not in name else torch.zeros(())
    torch.testing.assert_close(found.notes["relevance_of_biases"].sum(), taken.double())
    torch.testing.assert_close(found.values.sum() + taken, found.score[0])


class Tokens(nn.Module):
    """A batch norm of tokens, or of the rows of an output without a batch, behind a layer: no channels of that."""

    def __init__(self, unbatched: bool, written: bool):
        super().__init__()
        self.unbatched, self.written = unbatched, written
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.layer = nn.Conv1d(1, 6, 1) if unbatched else nn.Linear(6, 6)
            self.norm = nn.BatchNorm1d(6)
            for values in (self.norm.weight, self.norm.bias, self.norm.running_mean):
                nn.init.normal_(values)  # type: ignore[arg-type]  # it has statistics

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.layer(x[0, :1]) if self.unbatched else self.layer(x)
        if not self.written:
            return F.relu(self.norm(tokens)).sum(-2 if self.unbatched else -1).reshape(1, 6)
        norm = self.norm
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()  # type: ignore[operator]  # tensors
        shift = norm.bias - norm.running_mean * scale  # type: ignore[operator]  # tensors
        shape = (1, 6) if self.unbatched else (6, 1)
        normed = tokens * scale.detach().reshape(shape) + shift.detach().reshape(shape)
        return F.relu(normed).sum(-2 if self.unbatched else -1).reshape(1, 6)


@pytest.mark.parametrize("unbatched", [False, True])
def test_a_batch_norm_of_other_dimensions_is_no_part_of_the_layer(unbatched: bool) -> None:
    x, of = drawn(1, 6, 6), composite(conv=z_plus(), linear=z_plus())
    net, plain = (Tokens(unbatched, written).double().eval() for written in (False, True))
    torch.testing.assert_close(net(x), plain(x))
    for bias in ("absorb", "report"):
        found, expected = (explain(each, x, "lrp", composite=of, target=1, bias=bias).values for each in (net, plain))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        (lambda: epsilon(-1), ValueError, "the stabilizer of epsilon is -1; give a number from 0"),
        (lambda: epsilon(float("nan")), ValueError, "the stabilizer of epsilon is nan; give a number from 0"),
        (lambda: gamma(-0.1), ValueError, r"the factor of gamma is -0\.1; give a number from 0"),
        (lambda: z_box(3, -3), ValueError, "low=3 of z_box is not below high=-3; give the lowest value as low"),
        (lambda: alpha_beta(float("nan"), 1), ValueError, "alpha_beta: alpha=nan and beta=1 do not keep the sum"),
        (lambda: composite(), ValueError, r"composite: it has no rule; give one, such as conv=z_plus\(\)"),
        (lambda: composite(conv=z_plus), TypeError, r"composite: conv is <class .*>; give a rule, such as z_plus\(\)"),
        (lambda: composite(operations=((F.linear, "x"),)), TypeError, "composite: linear is 'x'; give a rule"),
        (lambda: composite(operations=((nn.Linear, z_plus()),)), TypeError, "a rule names operations, not modules"),
        *(
            (lambda rule=rule: composite(conv=rule), ValueError, "is a rule for the first layer; give it as first")
            for rule in (flat(), w_square(), z_box())
        ),
        (
            lambda: explain(Written(F.relu).eval(), drawn(1, 6), "lrp", low=-1.0, target=1),
            ValueError,
            "low and high are those of z_box in a composite of a name, such as epsilon_gamma_box; leave them out",
        ),
        (
            lambda: explain(Written(F.relu).eval(), drawn(1, 6), "lrp", composite=composite(conv=gamma()), target=1),
            LookupError,
            "changes nothing in Written: none of conv1d, conv2d, .* is between the score and what is explained",
        ),
    ],
)
def test_rules_that_can_not_be_are_refused(made: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as told:
        made()
    assert "\n" not in str(told.value)


def test_one_bound_of_a_box_is_kept_beside_that_of_the_preprocessing() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 3)).double().eval()
    x, box = drawn(1, 2, 2, 2), Preprocessing(mean=(0.5, 0.5), std=(0.25, 0.25))  # from -2 to 2
    found, expected = (
        explain(net, x, "lrp", composite=composite(first=first), preprocessing=box, target=1).values
        for first in (z_box(low=-5), z_box(-5, 2))
    )
    torch.testing.assert_close(found, expected)


def test_a_rule_is_about_an_operation_however_that_is_spelled() -> None:
    spelled = composite(operations=[(torch.Tensor.matmul, epsilon(0.5)), (torch.ops.aten.linear, z_plus())])  # type: ignore[arg-type]  # a list will do
    assert spelled == composite(operations=((torch.matmul, epsilon(0.5)), (F.linear, z_plus())))
    assert list(Rule("each", {torch.relu_: lambda call, grad: grad}).backwards) == [F.relu]
    x = drawn(1, 6)
    found = explain(Written(F.relu).eval(), x, "lrp", composite=spelled, target=1).values
    parts = (x.relu() * WEIGHT[:, 1])[0]
    torch.testing.assert_close(found[0], parts * parts.sum() / (parts.sum() + 0.5 * parts.sum().sign()))


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "other channels first": lambda x: x[:, [2, 1, 0]],
    "cut out": lambda x: x[:, :, 1:, :4],
    "every second": lambda x: x[:, 1:, ::2, ::2],
    "padded": lambda x: F.pad(x, (1, 1, 0, 1)),
    "padded by itself": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "twice": lambda x: torch.cat([x, x.flip(3)], 1),
    "prepared": lambda x: (torch.stack([x[:, 2], x[:, 0]], 1) - 0.4) * torch.tensor([0.2, 4.0]).reshape(2, 1, 1),
    "white for black": lambda x: 1 - x,
    "of the other sign": lambda x: -x,
    "less its mean": lambda x: (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True),
}


class Moved(nn.Module):
    """A network whose first layer is given the input otherwise than it came."""

    def __init__(self, move: Callable[[Tensor], Tensor]):
        super().__init__()
        self.move = move
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.conv, self.head = nn.Conv2d(move(torch.randn(1, 3, 5, 5)).shape[1], 4, 2), nn.Linear(4, 3)

    def behind(self, moved: Tensor) -> Tensor:
        return self.head(self.conv(moved).relu().mean((2, 3)))  # type: ignore[no-any-return]  # torch says so

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.move(x))


class Behind(nn.Module):
    def __init__(self, whole: Moved):
        super().__init__()
        self.whole = whole

    def forward(self, moved: Tensor) -> Tensor:
        return self.whole.behind(moved)


@pytest.mark.parametrize("first", [flat(), w_square(), z_box(-4, 4)], ids=repr)
@pytest.mark.parametrize("move", MOVES)
def test_relevance_of_the_first_layer_comes_to_the_values_that_it_was_given(move: str, first: object) -> None:
    net, x = Moved(MOVES[move]).double().eval(), drawn(2, 3, 5, 5)
    of = composite(first, z_plus(), epsilon())  # type: ignore[arg-type]  # a rule
    moved = MOVES[move](x)
    relevance = explain(Behind(net).eval(), moved, "lrp", composite=of, target=1).values
    given = x.clone().requires_grad_()
    if move == "prepared":
        places = torch.stack([given[:, 2], given[:, 0]], 1)
    else:
        places = given if move in ("less its mean", "white for black", "of the other sign") else MOVES[move](given)
    (expected,) = torch.autograd.grad(places, given, relevance)  # each value's relevance is added where it came from
    found = explain(net, x, "lrp", composite=of, target=1, bias="report")
    torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=1e-12)
    assert found.notes["completeness_gap"].abs().max() < 1e-12


def test_weights_that_come_from_the_input_are_not_merged_with_a_batch_norm() -> None:
    x, scale, shift, rest = drawn(1, 6), drawn(6, seed=5), drawn(6, seed=6), (torch.zeros(6), torch.ones(6))

    def normed(x: Tensor) -> Tensor:
        mean, variance = (values.double() for values in rest)
        product = F.linear(x, x[0].outer(OTHER[0, 0]))
        return F.batch_norm(product, mean, variance - 0.25, scale, shift, eps=0.25).relu()

    def plain(x: Tensor) -> Tensor:
        return (F.linear(x, x[0].outer(OTHER[0, 0])) * scale + shift).relu()

    found, expected = (
        explain(Written(each).eval(), x, "lrp", target=1, product="halves").values for each in (normed, plain)
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
