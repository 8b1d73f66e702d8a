"""Every argument of every loss and operator: what has the wrong type or range is refused before the work begins."""

from __future__ import annotations

import inspect
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import bmrl.losses
import bmrl.ops
from bmrl.errors import BMRLError
from bmrl.losses import (
    BMRLObjective,
    CMCLoss,
    ContrastiveCenterLoss,
    CPCLoss,
    DFACCLoss,
    LanguageAlignmentLoss,
    contrastive_center_loss,
    contrastive_loss,
    dfacc_loss,
    dfacc_terms,
    language_alignment_loss,
)
from bmrl.ops import (
    SRM,
    Grayscale,
    PatchHomogeneity,
    ResidualStatistics,
    RichestPatch,
    Sobel,
    ViewExtractor,
    all_patches,
    grayscale,
    patch_homogeneity,
    residual_statistics,
    richest_patch,
    sobel,
    srm,
    views,
)

NAN, INF = float("nan"), float("inf")
ROWS, LABELS = torch.eye(4, 3), torch.tensor([0, 1, 0, 1])
IMAGES = torch.rand(2, 3, 8, 8)
LARGE = torch.rand(2, 3, 40, 33)
CONFIG = SimpleNamespace(num_generators=2, embed_dim=3)

NO_NUMBER = (True, "a", "0.5", None, [0.5], torch.tensor(0.5), 1j, np.array([0.5]))
NO_INTEGER = (True, "a", 1.5, 2.0, [1], torch.tensor(2), NAN, np.float64(2))
NO_SWITCH = (None, 1, 0, "false", torch.tensor(True), np.bool_(True))
NO_CHOICE = (None, 1, "x", True, ["mean"], torch.zeros(2), np.array(["mean", "sum"]))
NO_TENSOR = (None, 1.0, [[1.0]], "a", np.zeros((4, 3)))

# What an argument refuses, and what it takes.
WEIGHT = ((*NO_NUMBER, -1, NAN, INF, -INF), (0, 0.5, np.float32(0.5), np.float64(0.5), np.int64(2), Fraction(1, 2)))
SCALE = ((*NO_NUMBER, 0, -1, NAN, INF), (1, 0.5, np.float32(0.5), np.int64(1), Fraction(1, 2)))
COUNT = ((*NO_INTEGER, None, 0, -1), (3, np.int64(3)))
CHUNK = ((*NO_INTEGER, 0, -1), (None, 1, 100, np.int64(2)))
COLOR = (
    (
        *NO_TENSOR,
        LARGE[0],
        LARGE[:, :1],
        LARGE[..., :31],
        LARGE.long(),
        LARGE.bool(),
        LARGE * 255,
        LARGE.to(torch.complex64),
    ),
    (LARGE, LARGE.double(), LARGE.half(), (255 * LARGE).to(torch.uint8), LARGE[:0]),
)
SWITCH = (NO_SWITCH, (True, False))
GATHER = ((*NO_SWITCH,), (True, False))
GROUP = ((1, "gloo", True, [0]), (None,))
REDUCTION = (NO_CHOICE, ("mean", "sum", "none"))
BATCH = (
    (*NO_TENSOR, ROWS[0], ROWS[:0], ROWS.int(), ROWS.bool(), ROWS + 1j, ROWS * NAN, ROWS / 0, ROWS[:3]),
    (ROWS, ROWS.half(), ROWS.double()),
)
PARTNERS = ((*BATCH[0], ROWS[:, :2]), BATCH[1])
LABEL = (
    (1, [0, 1], LABELS.float(), LABELS.int(), LABELS[:3], LABELS[:, None], LABELS > 0, "a"),
    (LABELS,),
)
CENTER_LABEL = ((*LABEL[0], None, LABELS - 1, LABELS + 1), LABEL[1])
CENTERS = (
    (*NO_TENSOR, ROWS[0], ROWS[:2].int(), ROWS[:2] * NAN, ROWS[:2] * 1e30, ROWS[:2, :2]),
    (ROWS[:2], ROWS[:2].half(), ROWS[:2].double()),
)
INIT = (NO_CHOICE, ("sphere", "simplex"))
TARGETS = (NO_CHOICE, ("diagonal", "same_label"))
DIRECTION = (NO_CHOICE, ("forward", "reverse"))
TEMPERATURE = (
    (*(bad for bad in SCALE[0] if not isinstance(bad, torch.Tensor)), ROWS, torch.tensor(1), torch.tensor(-0.5)),
    (*SCALE[1], torch.tensor(0.5), torch.tensor([0.5])),
)
FIRST_TEMPERATURE = ((*SCALE[0], 0.001), SCALE[1])
GATE = ((1, ROWS, ROWS @ ROWS.mT / 0, torch.zeros(4, 4).int(), torch.zeros(4), "a"), (None, torch.zeros(5, 6)))
MASK = ((1, [True], LABELS, LABELS[:3] > 0, "a"), (None, LABELS > 0))
DETACHED = {"gather": GATHER, "group": GROUP}
IMAGE = (
    (*NO_TENSOR, IMAGES[0], IMAGES[:, :2], IMAGES.int(), IMAGES.bool(), IMAGES + 1j),
    (IMAGES, IMAGES.half(), IMAGES.double(), (IMAGES * 255).to(torch.uint8), IMAGES[:0], IMAGES[:, :1]),
)
SIDES = ((*IMAGE[0], IMAGES[..., :1]), IMAGE[1])
PATCH = ((*NO_INTEGER, None, 0, 1, -4, 9), (2, 4, 8, np.int64(4)))
MADE_PATCH = ((*NO_INTEGER, None, 0, 1, -4), (2, 4, np.int64(4)))
TRUNCATION = ((*NO_NUMBER, 0, -1, NAN), (*SCALE[1], INF))
DTYPE = ((None, "float32", torch.uint8, float, np.float32, np.dtype("float32")), (torch.float16, torch.float64))

DFACC = {"margin": WEIGHT, "chunk_rows": CHUNK, **DETACHED}
CLUSTERS = {"embeddings": BATCH, "labels": CENTER_LABEL, "centers": CENTERS}
MODULE_CENTERS = {"num_generators": COUNT, "embed_dim": COUNT, "init": INIT}
CONTRASTIVE = {"targets": TARGETS, "reduction": REDUCTION, "chunk_rows": CHUNK, **DETACHED}

# Each public callable: a call that works, by name of argument, and what each argument refuses and takes.
CASES = {
    dfacc_loss: (
        {"embeddings": ROWS, "labels": LABELS, "centers": ROWS[:2]},
        {**CLUSTERS, **DFACC, "inter_weight": WEIGHT},
    ),
    dfacc_terms: ({"embeddings": ROWS, "labels": LABELS, "centers": ROWS[:2]}, {**CLUSTERS, **DFACC}),
    contrastive_center_loss: (
        {"embeddings": ROWS, "labels": LABELS, "centers": ROWS[:2]},
        {**CLUSTERS, "delta": SCALE, "reduction": REDUCTION, **DETACHED},
    ),
    contrastive_loss: (
        {"embeddings": ROWS, "paired_embeddings": ROWS, "labels": LABELS},
        {
            "embeddings": BATCH,
            "paired_embeddings": PARTNERS,
            "labels": LABEL,
            "temperature": TEMPERATURE,
            "gate": GATE,
            "mask": MASK,
            **CONTRASTIVE,
        },
    ),
    language_alignment_loss: (
        {"language_embeddings": ROWS, "predicted_embeddings": ROWS},
        {
            "language_embeddings": BATCH,
            "predicted_embeddings": PARTNERS,
            "direction": DIRECTION,
            "detach": SWITCH,
            "reduction": REDUCTION,
            **DETACHED,
        },
    ),
    DFACCLoss: ({"num_generators": 2, "embed_dim": 3}, {**MODULE_CENTERS, **DFACC, "inter_weight": WEIGHT}),
    ContrastiveCenterLoss: (
        {"num_generators": 2, "embed_dim": 3},
        {**MODULE_CENTERS, "delta": SCALE, "reduction": REDUCTION, **DETACHED},
    ),
    CPCLoss: ({}, {"temperature": FIRST_TEMPERATURE, **CONTRASTIVE}),
    CMCLoss: ({}, {"temperature": FIRST_TEMPERATURE, "spa_batch_size": CHUNK, **CONTRASTIVE}),
    LanguageAlignmentLoss: (
        {},
        {"direction": DIRECTION, "detach": SWITCH, "reduction": REDUCTION, **DETACHED},
    ),
    BMRLObjective: (
        {"config": CONFIG},
        {
            "config": (
                (
                    None,
                    3,
                    "a",
                    {},
                    SimpleNamespace(num_generators=2),
                    SimpleNamespace(num_generators=2, embed_dim=0),
                    SimpleNamespace(num_generators="2", embed_dim=3),
                    SimpleNamespace(num_generators=2.0, embed_dim=3),
                ),
                (CONFIG,),
            ),
            "weights": (
                (
                    3,
                    0,
                    False,
                    "",
                    "dfa",
                    [],
                    [("dfa", 1)],
                    {"ce": 1},
                    {1: 1},
                    *({"kl": bad} for bad in WEIGHT[0]),
                ),
                (None, {}, *({"kl": good} for good in WEIGHT[1])),
            ),
            "margin": WEIGHT,
            "inter_weight": WEIGHT,
            "dfacc_on": (NO_CHOICE, ("embedding", "probability")),
            "metric_loss": (NO_CHOICE, ("dfacc", "vcc", "none")),
            "temperature": FIRST_TEMPERATURE,
            "contrastive_targets": TARGETS,
            "spa_batch_size": CHUNK,
            "kl_direction": DIRECTION,
            "kl_detach": SWITCH,
            "label_smoothing": ((*NO_NUMBER, -0.1, 1, 1.5, NAN, INF), (0, 0.5, np.float32(0.5))),
            "chunk_rows": CHUNK,
            **DETACHED,
        },
    ),
    grayscale: ({"images": IMAGES}, {"images": IMAGE}),
    sobel: ({"images": IMAGES}, {"images": SIDES}),
    srm: ({"images": IMAGES}, {"images": IMAGE, "truncation": TRUNCATION}),
    patch_homogeneity: ({"images": IMAGES, "patch_size": 4}, {"images": IMAGE, "patch_size": PATCH}),
    richest_patch: ({"images": IMAGES, "patch_size": 4}, {"images": IMAGE, "patch_size": PATCH}),
    all_patches: ({"images": IMAGES, "patch_size": 4}, {"images": IMAGE, "patch_size": PATCH}),
    residual_statistics: ({"images": LARGE}, {"images": COLOR}),
    views: (
        {"images": IMAGES, "patch_size": 4},
        {"images": SIDES, "patch_size": PATCH, "truncation": TRUNCATION, "dtype": DTYPE},
    ),
    Grayscale: ({}, {}),
    Sobel: ({}, {}),
    SRM: ({}, {"truncation": TRUNCATION}),
    ResidualStatistics: ({}, {}),
    PatchHomogeneity: ({}, {"patch_size": MADE_PATCH}),
    RichestPatch: ({}, {"patch_size": MADE_PATCH}),
    ViewExtractor: ({}, {"patch_size": MADE_PATCH, "truncation": TRUNCATION, "dtype": DTYPE}),
}
ARGUMENTS = [
    pytest.param(function, name, id=f"{function.__name__}-{name}")
    for function, (_, arguments) in CASES.items()
    for name in arguments
]
# Told by the name that the loss gives the argument.
RENAMED = {"contrastive_targets": "targets", "kl_direction": "direction", "config": "num_generators|embed_dim|config"}
# Where sizes do not match, either argument may be named.
PAIRS = {"embeddings": "embeddings|labels|paired_embeddings", "centers": "centers|embeddings|labels"}
PAIRS |= {"language_embeddings": "language_embeddings|predicted_embeddings", "images": "images|patch_size"}


def call(function, **changes):
    return function(**CASES[function][0] | changes)


@pytest.mark.parametrize(("function", "name"), ARGUMENTS)
def test_refuses(function, name):
    for bad in CASES[function][1][name][0]:
        try:
            call(function, **{name: bad})
        except BMRLError as error:
            message = str(error)
        else:
            pytest.fail(f"{name}={bad!r} was taken")
        named = RENAMED.get(name) or PAIRS.get(name, name)
        assert any(message.startswith(one) for one in named.split("|")), (bad, message)
        assert "expected" in message
        assert ", got " in message
        assert "\n" not in message


@pytest.mark.parametrize(("function", "name"), ARGUMENTS)
def test_takes(function, name):
    for good in CASES[function][1][name][1]:
        call(function, **{name: good})


@pytest.mark.parametrize("function", CASES, ids=lambda function: function.__name__)
def test_the_table_has_every_argument(function):
    parameters = inspect.signature(function).parameters.keys()
    assert CASES[function][1].keys() == parameters - {"args", "kwargs"}  # those of a module that takes nothing


def test_the_table_has_every_public_callable():
    results = {"DFACCTerms", "ObjectiveResult", "Views"}  # what functions return
    constants = {"NUM_STATISTICS", "STATISTICS"}
    assert {function.__name__ for function in CASES} == {*bmrl.losses.__all__, *bmrl.ops.__all__} - results - constants


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
@pytest.mark.parametrize("chunk_rows", [None, np.int64(2)])
def test_numbers_of_other_libraries_mean_what_they_say(number, chunk_rows):
    rows = torch.randn(5, 3, requires_grad=True)
    labels, centers = torch.tensor([0, 1, 0, 1, 1]), torch.randn(2, 3)
    size = None if chunk_rows is None else 2
    for compute in (
        lambda x, c: dfacc_loss(rows, labels, centers, margin=x, inter_weight=x, chunk_rows=c),
        lambda x, c: contrastive_center_loss(rows, labels, centers, delta=x),
        lambda x, c: contrastive_loss(rows, rows.flip(0), temperature=x, chunk_rows=c),
        lambda x, c: srm(IMAGES.clone().requires_grad_(), truncation=x / 10).sum(),
    ):
        value = compute(number, chunk_rows)
        assert torch.equal(value, compute(0.5, size))
        value.backward()


def test_numbers_changed_later_are_checked_in_the_call():
    loss = DFACCLoss(2, 3)
    loss.margin = "a"
    with pytest.raises(BMRLError, match=r"^margin: expected a number, got 'a'$"):
        loss(ROWS, LABELS)


@pytest.mark.parametrize("margin", [0.5, 1])
def test_numbers_may_be_arguments_of_a_compiled_function(margin):
    centers = torch.randn(2, 3)
    compiled = torch.compile(dfacc_loss, fullgraph=True, backend="eager")
    for value in (margin, margin + 0.25, margin + 0.5):
        options = {"margin": value, "inter_weight": value}
        torch.testing.assert_close(
            compiled(ROWS, LABELS, centers, **options), dfacc_loss(ROWS, LABELS, centers, **options)
        )
