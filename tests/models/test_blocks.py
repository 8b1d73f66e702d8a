"""Blocks that are handed over: they take part, are tried first, and what does not fit is named."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bmrl.errors import BMRLError, ConfigError, DTypeError, ShapeError
from bmrl.models import View, build_model
from bmrl.ops import Sobel, residual_statistics, richest_patch, sobel, srm
from tests.models.blocks import Cosine, Parsing, Pooled, cosine_view, every_block
from tests.models.conftest import make_config

IMAGES = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
PARSING = torch.randint(0, 19, (2, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(1, 50, (2, 4, 6), generator=torch.Generator().manual_seed(2))


def test_every_block_at_once():
    blocks = every_block()
    model = build_model(make_config(), **blocks)
    assert model.training
    assert all(module.training for module in model.modules())
    model.eval()
    with torch.inference_mode():
        output = model(IMAGES, PARSING, TOKENS)
        scaled = IMAGES / 255
        patches, _ = richest_patch(scaled, patch_size=32)
        embeddings = [
            blocks["appearance"](scaled),
            blocks["edge"](sobel(scaled)),
            blocks["noise"](srm(patches, truncation=0.04)),
            blocks["statistics"](residual_statistics(IMAGES)),
            blocks["views"]["cosine"].encoder(blocks["views"]["cosine"].operator(scaled)),
        ]
        expected = nn.functional.normalize(sum(embeddings), dim=-1)
        torch.testing.assert_close(output.embedding, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(output.logits, blocks["head"](expected), rtol=1e-4, atol=1e-5)
        assert torch.equal(output.parsing, blocks["parsing"](PARSING))
        assert torch.equal(output.language, blocks["language"](TOKENS))
    assert model.visual_encoder.views["appearance"].encoder is blocks["appearance"]


def test_the_configuration_says_what_was_handed_over():
    config = build_model(make_config(edge=None), **every_block()).config
    for part in (config.appearance, config.edge, config.noise.encoder, config.statistics, config.parsing):
        assert part.kind == "custom"
    assert config.appearance.module == "tests.models.blocks.Pooled"
    assert config.head.module == "torch.nn.modules.linear.Linear"
    assert (config.language.kind, config.language.context_length) == ("custom", 6)
    (view,) = config.views
    assert (view.name, view.operator, view.encoder) == (
        "cosine",
        "tests.models.blocks.Cosine",
        "tests.models.blocks.Pooled",
    )
    assert make_config().appearance.kind == "conv_transformer"


@pytest.mark.parametrize("name", ["appearance", "edge", "noise", "statistics", "parsing", "language", "head", "views"])
def test_one_block_among_those_of_the_library(name):
    block = every_block()[name]
    model = build_model(make_config(fusion={"kind": "cross_attention"}), **{name: block}).eval()
    with torch.inference_mode():
        output = model(IMAGES, PARSING, TOKENS)
    assert output.logits.shape == (2, 3)
    assert {output.embedding.shape, output.parsing.shape, output.language.shape} == {(2, 16)}


def test_an_own_block_turns_a_part_on():
    off = dict.fromkeys(("edge", "noise", "parsing", "language"))
    model = build_model(make_config(**off), noise=Pooled(), parsing=Parsing())
    assert list(model.visual_encoder.views) == ["appearance", "noise"]
    assert model.parsing_encoder is not None
    alone = build_model(make_config(**off), views={"cosine": cosine_view()}, appearance=Pooled())
    assert list(alone.visual_encoder.views) == ["appearance", "cosine"]


class Broken(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.act = act

    def forward(self, values):
        return self.act(values)


def fail(values):
    raise RuntimeError("mat1 and mat2\nshapes cannot be multiplied")


WANTED = {
    "appearance": r"\(batch, 3, 32, 32\) to \(batch, 16\)",
    "edge": r"\(batch, 1, 32, 32\) to \(batch, 16\)",
    "noise": r"\(batch, 3, 8, 8\) to \(batch, 16\)",
    "statistics": r"\(batch, 465\) to \(batch, 16\)",
    "parsing": r"\(batch, 32, 32\) to \(batch, 16\)",
    "language": r"\(batch, 4, 6\) to \(batch, 16\)",
    "head": r"\(batch, 16\) to \(batch, 3\)",
}
WRONG = {
    "width": (lambda values: torch.zeros(len(values), 7), ShapeError, r"\(2, 7\)"),
    "rank": (lambda values: torch.zeros(len(values), 16, 1, 1), ShapeError, r"\(2, 16, 1, 1\)"),
    "lost batch axis": (lambda values: values.new_zeros(len(values), 0), ShapeError, r"\(2, 0\)"),
    "dtype": (lambda values: torch.zeros(len(values), 16, dtype=torch.float64), DTypeError, "torch.float64"),
    "type": (lambda values: (values, values), DTypeError, "a tuple"),
    "exception": (fail, ConfigError, "RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
}


@pytest.mark.parametrize("name", WANTED)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_block_that_breaks_its_contract_is_named(name, wrong):
    act, kind, got = WRONG[wrong]
    if name == "head" and wrong == "dtype":
        act = lambda values: torch.zeros(len(values), 3, dtype=torch.float64)  # noqa: E731
    with pytest.raises(kind, match=rf"^{name}: expected a module that maps {WANTED[name]}.*, got {got}$"):
        build_model(make_config(noise={"patch_size": 8}), **{name: Broken(act)})


@pytest.mark.parametrize(
    "view", [View(Broken(fail), Pooled()), View(nn.Identity(), Pooled(1)), View(nn.Identity(), Pooled(3, 8))]
)
def test_a_view_that_breaks_its_contract_is_named(view):
    with pytest.raises(BMRLError, match=r"^views.mine: expected a module that maps \(batch, 3, 32, 32\) to .*, got "):
        build_model(make_config(), views={"mine": view})


def test_a_squeezed_batch_of_one_is_found():
    squeezing = nn.Sequential(Pooled(), Broken(torch.squeeze))
    with pytest.raises(ShapeError, match=r"^appearance: expected .*, got \(16,\)$"):
        build_model(make_config(), appearance=squeezing)


def test_another_width_of_a_real_encoder():
    with pytest.raises(ShapeError, match=r"^noise: .*\(batch, 3, 32, 32\) to \(batch, 16\), got \(2, 8\)$"):
        build_model(make_config(), noise=Pooled(3, 8))


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"edge": Pooled}, r"edge: expected a torch.nn.Module, got the class Pooled"),
        ({"head": torch.sin}, r"head: expected a torch.nn.Module, got builtin_function"),
        ({"parsing": False}, r"parsing: expected a torch.nn.Module, got False"),
        ({"views": [cosine_view()]}, r"views: expected views by name, got list"),
        ({"views": {"a": Pooled()}}, r"views.a: expected a bmrl.models.View, got Pooled"),
    ],
)
def test_what_is_no_block(blocks, message):
    with pytest.raises(DTypeError, match=message):
        build_model(make_config(), **blocks)


@pytest.mark.parametrize("name", ["edge", "a.b", "", "a b", "items", "_orig_mod", 3, "ä"])
def test_names_that_no_view_may_have(name):
    with pytest.raises(ConfigError, match=r"views: expected a Python identifier other than appearance, edge, noise"):
        build_model(make_config(), views={name: cosine_view()})


def test_blocks_share_nothing():
    shared = nn.Linear(24, 16)
    first, second = Pooled(), Pooled(1)
    first.last = second.last = shared
    with pytest.raises(ConfigError, match=r"^edge: expected its own modules, got one of appearance"):
        build_model(make_config(), appearance=first, edge=second)


def test_a_custom_part_is_wanted():
    config = build_model(make_config(), **every_block()).config
    with pytest.raises(ConfigError, match=r"^appearance: expected the module .* custom \(tests.*Pooled\), got none"):
        build_model(config)
    blocks = every_block()
    del blocks["views"]
    with pytest.raises(ConfigError, match=r"^views.cosine: expected the module that the configuration calls custom"):
        build_model(config, **blocks)
    build_model(config, **every_block())


class Noisy(nn.Module):
    """Leaves traces wherever it can."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 16)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images):
        self.calls += 1
        return self.layer(images.mean(dim=(2, 3))) + torch.rand(16)


def test_a_trial_leaves_no_traces():
    block = Noisy()
    block.layer.eval()
    config = make_config(edge=None, noise=None, parsing=None, language=None)
    head = nn.Linear(16, 3)
    state = torch.get_rng_state()
    build_model(config, appearance=block, head=head)
    assert torch.equal(torch.get_rng_state(), state)
    assert block.calls.item() == 0
    assert (block.training, block.layer.training) == (True, False)
    assert block.layer.weight.grad is None


class Counting(nn.Module):
    """Puts another tensor into its buffer's place at each call."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 16)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images):
        self.calls = self.calls + 1
        return self.layer(images.mean(dim=(2, 3)))


def test_a_trial_puts_buffers_back_that_were_replaced():
    block = Counting()
    calls = block.calls
    build_model(make_config(), appearance=block)
    assert block.calls is calls
    assert calls.item() == 0


def test_a_view_of_a_class():
    with pytest.raises(DTypeError, match=r"^operator: expected a torch.nn.Module, got the class Sobel"):
        View(Sobel, Pooled(1))


def test_a_block_without_values():
    with pytest.raises(ConfigError, match=r"^noise: expected a module with values, got one on the meta device"):
        build_model(make_config(), noise=Pooled().to("meta"))


def test_blocks_in_another_precision():
    model = build_model(make_config(), appearance=Pooled(), views={"cosine": cosine_view()})
    assert model.double()(IMAGES).logits.dtype == torch.float64
    with pytest.raises(DTypeError, match=r"^edge: expected a module in torch.float32, .*, got torch.float16"):
        build_model(make_config(), edge=Pooled(1).half())
    with pytest.raises(DTypeError, match=r"^views.cosine: expected a module in torch.float32, .*, got torch.float64"):
        build_model(make_config(), views={"cosine": View(Cosine(), Pooled(1).double())})
    exact = View(Cosine().double(), Pooled(1))  # only the operator, whose result is converted
    assert build_model(make_config(), views={"cosine": exact})(IMAGES).logits.dtype == torch.float32


def test_operators_may_learn():
    view = View(nn.Conv2d(3, 1, 5, padding=2), Pooled(1))
    model = build_model(make_config(), views={"learned": view})
    model(IMAGES).logits.square().sum().backward()
    assert view.operator.weight.grad.abs().sum() > 0


def test_a_second_view_of_the_librarys_operator():
    model = build_model(make_config(), views={"edge_again": View(Sobel(), Pooled(1))}).eval()
    encoder = model.visual_encoder
    with torch.inference_mode():
        expected = torch.stack([view(IMAGES) for view in encoder.views.values()]).sum(dim=0)
        torch.testing.assert_close(encoder(IMAGES), expected, rtol=1e-4, atol=1e-5)
