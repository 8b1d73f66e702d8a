from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bmrl.errors import ConfigError, DTypeError, RangeError, ShapeError
from bmrl.losses import (
    BMRLObjective,
    contrastive_center_loss,
    contrastive_loss,
    dfacc_loss,
    language_alignment_loss,
)

LABELS = torch.tensor([0, 1, 2, 2, 1, 0])
ALL = {"dfa", "dfacc", "cmc", "cpc", "kl"}


@dataclass(frozen=True)
class Config:
    num_generators: int = 3
    embed_dim: int = 5


class Output(NamedTuple):
    logits: Tensor
    probabilities: Tensor
    embedding: Tensor
    predicted_language: Tensor | None = None
    parsing: Tensor | None = None
    language: Tensor | None = None
    parsing_mask: Tensor | None = None


def make_output(batch=6, dtype=torch.float32):
    logits = torch.randn(batch, 3, dtype=dtype).requires_grad_()
    rows = [torch.randn(batch, 5, dtype=dtype).requires_grad_() for _ in range(4)]
    embedding, predicted_language, parsing, language = rows
    probabilities = logits.float().softmax(-1).to(dtype)
    return Output(logits, probabilities, F.normalize(embedding, dim=-1), predicted_language, parsing, language)


def cross_entropy(logits, labels, smoothing):
    """Eq. 3 against smoothed one-hot targets, in Python floats."""
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        norm = math.log(sum(map(math.exp, row)))
        for k, logit in enumerate(row):
            target = smoothing / len(row) + (1 - smoothing if k == label else 0.0)
            total -= target * (logit - norm)
    return total / len(logits)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_each_part_is_its_loss(tolerance, label_smoothing):
    output, objective = make_output(), BMRLObjective(Config(), label_smoothing=label_smoothing)
    parts = objective(output, LABELS).parts
    expected = {
        "dfa": torch.tensor(cross_entropy(output.logits, LABELS, label_smoothing)),
        "dfacc": dfacc_loss(output.embedding, LABELS, objective.dfacc.centers),
        "cmc": contrastive_loss(output.embedding, output.language),
        "cpc": contrastive_loss(output.embedding, output.parsing),
        "kl": language_alignment_loss(output.language, output.predicted_language),
    }
    assert parts.keys() == expected.keys()
    for name, part in parts.items():
        torch.testing.assert_close(part, expected[name], **tolerance(torch.float32, 10), msg=name)


def test_options_reach_their_terms(tolerance):
    output = make_output()
    objective = BMRLObjective(
        Config(),
        margin=1.5,
        inter_weight=0.25,
        dfacc_on="probability",
        temperature=0.5,
        contrastive_targets="same_label",
        spa_batch_size=8,
        kl_direction="reverse",
        kl_detach=True,
    )
    with torch.no_grad():
        objective.cmc.gate.copy_(torch.randn(8, 8))
    parts = objective(output, LABELS).parts
    same = {"temperature": 0.5, "targets": "same_label"}
    centers, gate = objective.dfacc.centers, objective.cmc.gate
    expected = {
        "dfacc": dfacc_loss(output.probabilities, LABELS, centers, margin=1.5, inter_weight=0.25),
        "cmc": contrastive_loss(output.embedding, output.language, LABELS, gate=gate, **same),
        "cpc": contrastive_loss(output.embedding, output.parsing, LABELS, **same),
        "kl": language_alignment_loss(output.predicted_language, output.language),
    }
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value, **tolerance(torch.float32, 10), msg=name)
    assert centers.shape == (3, 3)
    torch.testing.assert_close(centers.sum(-1), torch.ones(3))
    assert torch.autograd.grad(parts["kl"], output.language, allow_unused=True) == (None,)


def test_chunk_rows_reaches_the_losses_of_pairs():
    objective = BMRLObjective(Config(), chunk_rows=2)
    assert [loss.chunk_rows for loss in (objective.dfacc, objective.cmc, objective.cpc)] == [2, 2, 2]
    whole = BMRLObjective(Config())
    whole.load_state_dict(objective.state_dict())
    output = make_output()
    torch.testing.assert_close(objective(output, LABELS).parts, whole(output, LABELS).parts)
    (gradient,) = torch.autograd.grad(objective(output, LABELS).total, output.parsing, create_graph=True)
    with pytest.raises(RuntimeError, match="chunks have none"):
        gradient.sum().backward()


def test_contrastive_center_loss_takes_the_place_of_dfacc():
    output, objective = make_output(), BMRLObjective(Config(), metric_loss="vcc", weights={"vcc": 2.0})
    parts = objective(output, LABELS).parts
    assert parts.keys() == ALL - {"dfacc"} | {"vcc"}
    torch.testing.assert_close(parts["vcc"], contrastive_center_loss(output.embedding, LABELS, objective.vcc.centers))
    none = BMRLObjective(Config(), metric_loss="none")
    assert none(output, LABELS).parts.keys() == ALL - {"dfacc"}
    assert list(none.state_dict()) == ["cmc.log_scale", "cpc.log_scale"]


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.sampled_from(sorted(ALL)), st.sampled_from([0, 0.1, 1, 3])))
def test_total_is_the_weighted_sum(tolerance, weights):
    total, parts = BMRLObjective(Config(), weights=weights)(make_output(), LABELS)
    assert parts.keys() == {name for name in ALL if weights.get(name, 1) > 0}
    expected = math.fsum(weights.get(name, 1) * part.item() for name, part in parts.items())
    torch.testing.assert_close(total.item(), expected, **tolerance(torch.float32, 20))
    assert total.dtype == torch.float32
    assert total.shape == ()


def test_terms_of_weight_zero_own_no_parameters():
    objective = BMRLObjective(Config(), weights={"dfacc": 0, "cmc": 0}, spa_batch_size=6)
    assert list(objective.state_dict()) == ["cpc.log_scale"]
    objective(make_output(), LABELS).total.backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())


@pytest.mark.parametrize(
    ("missing", "left"),
    [
        ({"parsing"}, {"dfa", "dfacc", "cmc", "kl"}),
        ({"language"}, {"dfa", "dfacc", "cpc"}),
        ({"predicted_language"}, {"dfa", "dfacc", "cmc", "cpc"}),
        ({"language", "predicted_language", "parsing"}, {"dfa", "dfacc"}),
    ],
)
def test_branches_that_are_off_are_left_out(missing, left):
    output = make_output()._replace(**dict.fromkeys(missing))
    total, parts = BMRLObjective(Config())(output, LABELS)
    assert parts.keys() == left
    torch.testing.assert_close(total, torch.stack(list(parts.values())).sum())


def test_rows_without_a_parsing_map_do_not_enter_cpc(tolerance):
    output, mask = make_output(), torch.tensor([True, False, True, True, False, True])
    objective = BMRLObjective(Config())
    parts = objective(output._replace(parsing_mask=mask), LABELS).parts
    expected = contrastive_loss(output.embedding[mask], output.parsing[mask])
    torch.testing.assert_close(parts["cpc"], expected, **tolerance(torch.float32, 10))
    for count in (0, 1):
        parts = objective(output._replace(parsing_mask=torch.arange(6) < count), LABELS).parts
        assert parts["cpc"].item() == 0
    torch.testing.assert_close(parts["cmc"], contrastive_loss(output.embedding, output.language))


def test_every_input_and_parameter_learns():
    output, objective = make_output(), BMRLObjective(Config(), spa_batch_size=6)
    output.embedding.retain_grad()
    objective(output, LABELS).total.backward()
    rows = [output.logits, output.embedding, output.predicted_language, output.parsing, output.language]
    for tensor in [*rows, *objective.parameters()]:
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().sum() > 0


def test_gradcheck():
    objective, output = BMRLObjective(Config(), temperature=0.5).double(), make_output(dtype=torch.float64)
    leaves = [output.logits, output.predicted_language, output.parsing, output.language]
    embedding = output.embedding.detach().requires_grad_()

    def total(logits, predicted_language, parsing, language, embedding):
        out = Output(logits, logits.softmax(-1), embedding, predicted_language, parsing, language)
        return objective(out, LABELS).total

    assert torch.autograd.gradcheck(total, (*leaves, embedding), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 6])
def test_dtypes_and_autocast(dtype, batch):
    output, objective = make_output(batch, dtype), BMRLObjective(Config())
    plain = objective(output, LABELS[:batch])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = objective(output, LABELS[:batch])
    assert plain.total.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(cast.total, plain.total)
    assert cast.parts.keys() == ALL
    plain.total.backward()
    assert output.logits.grad.isfinite().all()


def test_compiles_without_graph_breaks(tolerance):
    output, objective = make_output(), BMRLObjective(Config(), label_smoothing=0.1)
    output = output._replace(parsing_mask=LABELS > 0)
    compiled = torch.compile(objective, fullgraph=True, backend="aot_eager")(output, LABELS)
    torch.testing.assert_close(compiled.total, objective(output, LABELS).total, **tolerance(torch.float32, 10))
    compiled.total.backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())


def test_state_dict_and_deepcopy():
    output = make_output()
    objective, other = (BMRLObjective(Config(), spa_batch_size=6) for _ in range(2))
    state = objective.state_dict()
    assert list(state) == ["dfacc.centers", "cmc.log_scale", "cmc.gate", "cpc.log_scale"]
    assert all(value.is_contiguous() for value in state.values())
    assert len({value.untyped_storage().data_ptr() for value in state.values()}) == len(state)
    assert not torch.equal(other(output, LABELS).total, objective(output, LABELS).total)
    other.load_state_dict(state)
    assert torch.equal(other(output, LABELS).total, objective(output, LABELS).total)
    assert torch.equal(copy.deepcopy(objective)(output, LABELS).total, objective(output, LABELS).total)


def test_learns_to_attribute():
    # End to end with an optimizer: the total falls and the embeddings gather around their centers.
    images = torch.randn(6, 8)
    visual, head = torch.nn.Linear(8, 5), torch.nn.Linear(5, 3)
    objective = BMRLObjective(Config())
    groups = [
        {"params": [*visual.parameters(), *head.parameters()], "lr": 1e-2},
        {"params": objective.parameters(), "lr": 5e-2, "weight_decay": 0.0},
    ]
    optimizer, totals = torch.optim.Adam(groups, weight_decay=1e-3), []
    for _ in range(60):
        embedding = F.normalize(visual(images), dim=-1)
        logits = head(embedding)
        result = objective(Output(logits, logits.softmax(-1), embedding), LABELS)
        optimizer.zero_grad()
        result.total.backward()
        optimizer.step()
        totals.append(result.total.item())
    assert totals[-1] < totals[0] - 1
    assert (logits.argmax(-1) == LABELS).all()
    assert (torch.cdist(embedding, objective.dfacc.centers).argmin(-1) == LABELS).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"weights": {"ce": 1}},
            ConfigError,
            "weights: expected names among dfa, dfacc, vcc, cmc, cpc, kl, got 'ce'",
        ),
        ({"weights": {"kl": -1}}, RangeError, "weights['kl']: expected >= 0, got -1"),
        ({"margin": -1}, RangeError, "margin: expected >= 0, got -1"),
        ({"inter_weight": -1}, RangeError, "inter_weight: expected >= 0, got -1"),
        ({"temperature": 0}, RangeError, "temperature: expected > 0, got 0"),
        ({"dfacc_on": "logits"}, RangeError, "dfacc_on: expected 'embedding' or 'probability', got 'logits'"),
        ({"metric_loss": "cc"}, RangeError, "metric_loss: expected 'dfacc' or 'vcc' or 'none', got 'cc'"),
        ({"kl_direction": "up"}, RangeError, "direction: expected 'forward' or 'reverse', got 'up'"),
        ({"label_smoothing": 1.0}, RangeError, "label_smoothing: expected >= 0 and < 1, got 1.0"),
        ({"spa_batch_size": -2}, RangeError, "spa_batch_size: expected an integer >= 1, got -2"),
    ],
)
def test_rejects_options(options, error, message):
    with pytest.raises(error) as caught:
        BMRLObjective(Config(), **options)
    assert str(caught.value) == message


def test_rejects_outputs_and_labels():
    output, objective = make_output(), BMRLObjective(Config())
    with pytest.raises(RangeError, match=r"^labels: expected values in 0..2, got 1..3$"):
        objective(output, LABELS + 1)
    with pytest.raises(DTypeError, match=r"^labels: expected torch.int64, got torch.int32$"):
        objective(output, LABELS.int())
    with pytest.raises(ShapeError, match=r"^labels: expected batch = 6, got 4 \(shape \(4,\)\)$"):
        objective(output, LABELS[:4])
    with pytest.raises(ShapeError, match=r"^logits: expected num_generators = 3, got 5 \(shape \(6, 5\)\)$"):
        objective(output._replace(logits=torch.zeros(6, 5)), LABELS)
    with pytest.raises(ShapeError, match=r"^embeddings: expected dim = 5, got 4 \(shape \(6, 4\)\)$"):
        objective(output._replace(embedding=torch.zeros(6, 4)), LABELS)
