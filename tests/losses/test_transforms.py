"""Second derivatives and the transforms of ``torch.func``, for every loss and operator: what works, and what says no.

The two tables of docs/losses.md and docs/ops.md.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap

from bmrl.losses import (
    BMRLObjective,
    CMCLoss,
    ContrastiveCenterLoss,
    CPCLoss,
    DFACCLoss,
    LanguageAlignmentLoss,
    contrastive_loss,
    dfacc_loss,
    dfacc_terms,
)
from bmrl.ops import grayscale, patch_homogeneity, richest_patch, sobel, srm, views

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")

LABELS = torch.tensor([0, 1, 2, 1])


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(sum(shape) + seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


ROWS, PARTNERS, CENTERS, GATE = draw(4, 5), draw(4, 6)[:, :5], draw(3, 5), draw(4, 4)
IMAGES = draw(2, 3, 6, 6).sigmoid()


def module(make):
    """A module whose parameters do not depend on the seed, as a function of rows."""
    loss = make().double()
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.copy_(draw(*parameter.shape) / 4)
    return loss


DFACC, VCC = module(lambda: DFACCLoss(3, 5)), module(lambda: ContrastiveCenterLoss(3, 5))
CPC, CMC = module(CPCLoss), module(lambda: CMCLoss(targets="same_label", spa_batch_size=4))
OBJECTIVE = module(lambda: BMRLObjective(SimpleNamespace(num_generators=3, embed_dim=5)))


def objective(rows):
    embedding, logits = F.normalize(rows), rows[:, :3]
    output = SimpleNamespace(logits=logits, probabilities=logits.softmax(1), embedding=embedding)
    output.predicted_language, output.parsing, output.language = rows.sin(), PARTNERS, PARTNERS
    return OBJECTIVE(output, LABELS).total


def in_all(views):
    """A number to which each pixel of each view adds in its own way."""
    return sum((view.sin() * torch.linspace(0.5, 1.5, view.numel()).reshape(view.shape)).sum() for view in views)


LOSSES = {
    "dfacc": (lambda rows: DFACC(rows, LABELS), ROWS),
    "dfacc of centers": (lambda centers: dfacc_loss(ROWS, LABELS, centers), CENTERS),
    "dfacc terms": (lambda rows: sum(dfacc_terms(rows, LABELS, CENTERS)), ROWS),
    "dfacc in chunks": (lambda rows: dfacc_loss(rows, LABELS, CENTERS, chunk_rows=2), ROWS),
    "vcc": (lambda rows: VCC(rows, LABELS), ROWS),
    "cpc": (lambda rows: CPC(rows, PARTNERS, mask=LABELS > 0), ROWS),
    "cmc": (lambda rows: CMC(rows, PARTNERS, LABELS), ROWS),
    "contrastive of partners": (lambda rows: contrastive_loss(PARTNERS, rows, gate=GATE, temperature=0.5), ROWS),
    "contrastive in chunks": (lambda rows: contrastive_loss(rows, PARTNERS, temperature=0.5, chunk_rows=2), ROWS),
    "kl": (lambda rows: LanguageAlignmentLoss()(PARTNERS, rows), ROWS),
    "objective": (objective, ROWS),
}
OPERATORS = {
    "grayscale": (lambda images: in_all([grayscale(images)]), IMAGES),
    "sobel": (lambda images: in_all([sobel(images)]), IMAGES),
    "srm": (lambda images: in_all([srm(images)]), IMAGES),
    "richest_patch": (lambda images: in_all(richest_patch(images, patch_size=3)[:1]), IMAGES),
    "views": (lambda images: in_all(views(images, patch_size=3, dtype=torch.float64)), IMAGES),
}


def gradient_of(function, point):
    """By autograd alone, from which the others are told."""
    leaf = point.detach().clone().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0]


def slope_of_gradient(function, point, along, step=1e-5):
    """By central differences."""
    ahead, behind = (gradient_of(function, point + sign * step * along) for sign in (1, -1))
    return (ahead - behind) / (2 * step)


def double_backward(function, point):
    leaf, along = point.clone().requires_grad_(), draw(*point.shape)
    (gradient,) = torch.autograd.grad(function(leaf), leaf, create_graph=True)
    return torch.autograd.grad((gradient * along).sum(), leaf)[0], slope_of_gradient(function, point, along)


def grad_of_grad(function, point):
    along = draw(*point.shape)
    got = grad(lambda at: (grad(function)(at) * along).sum())(point)
    return got, slope_of_gradient(function, point, along)


def forward_mode(function, point):
    along = draw(*point.shape, seed=1)  # along the rows themselves, a loss of directions does not change
    return jvp(function, (point,), (along,))[1], (gradient_of(function, point) * along).sum()


def several(point):
    return torch.stack([point, point * 0.9, point.flip(0)])


TRANSFORMS = {
    "grad": lambda f, x: (grad(f)(x), gradient_of(f, x)),
    "jacrev": lambda f, x: (jacrev(f)(x), gradient_of(f, x)),
    "vmap": lambda f, x: (vmap(f)(several(x)), torch.stack([f(one) for one in several(x)])),
    "vmap of grad": lambda f, x: (vmap(grad(f))(several(x)), torch.stack([gradient_of(f, one) for one in several(x)])),
    "double backward": double_backward,
    "grad of grad": grad_of_grad,
    "jvp": forward_mode,
    "jacfwd": lambda f, x: (jacfwd(f)(x), gradient_of(f, x)),
}
BATCHED, FORWARD, TWICE = (
    {"jacrev", "vmap", "vmap of grad", "jacfwd"},
    {"jvp", "jacfwd"},
    {"double backward", "grad of grad"},
)
CHUNKS = BATCHED | FORWARD | TWICE
REFUSED = {
    "dfacc": FORWARD,
    "dfacc of centers": FORWARD,
    "dfacc terms": FORWARD,
    "dfacc in chunks": CHUNKS,
    "vcc": FORWARD,
    "contrastive in chunks": CHUNKS,
    "objective": FORWARD,
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", [*LOSSES, *OPERATORS])
def test_transforms(name, transform, differentiates_twice):
    function, point = (LOSSES | OPERATORS)[name]
    run = TRANSFORMS[transform]
    if transform in REFUSED.get(name, ()):
        by_pytorch = transform == "jvp" or (transform in FORWARD and name != "contrastive in chunks")
        with pytest.raises(RuntimeError, match="jvp|forward AD" if by_pytorch else r"^chunk_rows: "):
            run(function, point)
        return
    if transform in TWICE and not differentiates_twice and name in ("dfacc", "dfacc terms", "vcc", "objective"):
        with pytest.raises(NotImplementedError):
            run(function, point)
        return
    got, expected = run(function, point)
    assert expected.abs().max() > 0
    near = {"rtol": 1e-5, "atol": 1e-7} if transform in TWICE else {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close(got, expected, **near)


@pytest.mark.parametrize("loss", [DFACC, VCC, CPC, CMC], ids=["dfacc", "vcc", "cpc", "cmc"])
def test_an_ensemble_of_parameters_by_vmap(loss):
    arguments = (ROWS, LABELS) if loss in (DFACC, VCC) else (ROWS, PARTNERS, LABELS)
    parameters = {name: several(parameter.detach()) for name, parameter in loss.named_parameters()}

    def value(one):
        return functional_call(loss, one, arguments)

    got = vmap(grad(value))(parameters)
    for place in range(3):
        one = {name: stack[place].clone().requires_grad_() for name, stack in parameters.items()}
        expected = torch.autograd.grad(value(one), list(one.values()))
        torch.testing.assert_close([stack[place] for stack in got.values()], list(expected))


def test_homogeneity_has_no_gradient():
    images = IMAGES.clone().requires_grad_()
    value = patch_homogeneity(images, patch_size=3)
    (gradient,) = torch.autograd.grad(value.sum(), images) if value.requires_grad else (torch.zeros(1),)
    assert (gradient == 0).all()  # levels are whole numbers
