"""The losses as this library, its peers and a first draft compute them, forward and backward.

python -m benchmarks.losses LOSS PROVIDER BATCH prints the memory that one of them adds to a fresh process, in MiB.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from bmrl.losses import contrastive_loss, dfacc_loss

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LOSSES", "LossCase", "Provider", "added_memory", "gradients"]

DIM = 512
GENERATORS = 11
TEMPERATURE = 0.07
_EXACT = "donot_use_mm_for_euclid_dist"


@dataclass(frozen=True)
class Provider:
    """One way to compute a loss from ``LossCase.inputs``."""

    run: Callable[..., Tensor]
    largest_batch: int = 2**62
    same_loss: bool = True
    """Whether its value and gradient must equal ours; False for another loss of the same pairs."""


@dataclass(frozen=True)
class LossCase:
    """A loss, what it takes, and who computes it; the first plain provider is the one that others are compared with."""

    inputs: Callable[[int, str], tuple[Tensor, ...]]
    batches: tuple[int, ...]
    plain: str
    providers: dict[str, Provider]


def gradients(run: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the loss and its gradients by the inputs that need one."""
    loss = run(*inputs)
    return loss.detach(), *torch.autograd.grad(loss, [one for one in inputs if one.requires_grad])


def _clusters(batch: int, device: str) -> tuple[Tensor, ...]:
    rng = torch.Generator().manual_seed(0)
    embeddings = F.normalize(torch.randn(batch, DIM, generator=rng)).to(device).requires_grad_()
    centers = F.normalize(torch.randn(GENERATORS, DIM, generator=rng)).to(device).requires_grad_()
    return embeddings, torch.randint(GENERATORS, (batch,), generator=rng).to(device), centers


def _pairs(batch: int, device: str) -> tuple[Tensor, ...]:
    rng = torch.Generator().manual_seed(0)
    first = torch.randn(batch, DIM, generator=rng)
    second = first + 4 * torch.randn(batch, DIM, generator=rng)  # partners are found, but not at once
    return first.to(device).requires_grad_(), second.to(device).requires_grad_()


def dense_dfacc(embeddings: Tensor, labels: Tensor, centers: Tensor, *, compute_mode: str = _EXACT) -> Tensor:
    """Equations 4-7 with the whole matrix of distances, as one would write them first."""
    batch = len(embeddings)
    intra = torch.cdist(embeddings, centers, compute_mode=compute_mode).gather(1, labels[:, None]).mean()
    with torch.no_grad():
        related = (torch.cdist(centers, centers) < 0.7)[labels[:, None], labels[None, :]]
        different = labels[:, None] != labels[None, :]
    distances = torch.cdist(embeddings, embeddings, compute_mode=compute_mode)
    values = torch.where(related, F.relu(distances - 0.7), -distances) * different
    return intra + 0.5 * values.sum() / (batch * (batch - 1))


def dense_contrastive(first: Tensor, second: Tensor) -> Tensor:
    """Two cross-entropies of the whole matrix of similarities."""
    logits = F.normalize(first) @ F.normalize(second).mT / TEMPERATURE
    places = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, places) + F.cross_entropy(logits.mT, places)) / 2


def _metric_learning_contrastive(embeddings: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    from pytorch_metric_learning.losses import ContrastiveLoss

    return ContrastiveLoss(neg_margin=0.7)(embeddings, labels) + 0 * centers.sum()


def _metric_learning_ntxent(first: Tensor, second: Tensor) -> Tensor:
    from pytorch_metric_learning.losses import NTXentLoss

    loss, places = NTXentLoss(temperature=TEMPERATURE), torch.arange(len(first), device=first.device)
    partners = places.clone()  # of the same labels but another tensor: else row u would be no positive of row u
    there = loss(first, places, ref_emb=second, ref_labels=partners)
    return (there + loss(second, places, ref_emb=first, ref_labels=partners)) / 2


def _open_clip(first: Tensor, second: Tensor) -> Tensor:
    from open_clip.loss import ClipLoss

    scale = torch.tensor(1 / TEMPERATURE, device=first.device)
    return ClipLoss()(F.normalize(first), F.normalize(second), scale)


@functools.cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(function)


LOSSES = {
    "dfacc": LossCase(
        _clusters,
        (32, 1024, 4096),
        "cdist",
        {
            "bmrl": Provider(dfacc_loss),
            "bmrl compiled": Provider(lambda *inputs: _compiled(dfacc_loss)(*inputs), largest_batch=1024),
            "cdist": Provider(dense_dfacc),
            # Another loss because near-duplicates are wrong; equal on these random points.
            "cdist by matrix product": Provider(functools.partial(dense_dfacc, compute_mode="use_mm_for_euclid_dist")),
            "pytorch-metric-learning ContrastiveLoss": Provider(_metric_learning_contrastive, same_loss=False),
        },
    ),
    "contrastive": LossCase(
        _pairs,
        (32, 1024, 8192),
        "cross-entropy",
        {
            "bmrl": Provider(functools.partial(contrastive_loss, temperature=TEMPERATURE)),
            "bmrl compiled": Provider(lambda *inputs: _compiled(contrastive_loss)(*inputs), largest_batch=1024),
            "cross-entropy": Provider(dense_contrastive),
            "open_clip ClipLoss": Provider(_open_clip),
            "pytorch-metric-learning NTXentLoss": Provider(_metric_learning_ntxent, largest_batch=256),
        },
    ),
}


def added_memory(loss: str, provider: str, batch: int) -> float:
    """Return the MiB that forward and backward add at their peak, measured in a separate process (Linux)."""
    command = [sys.executable, "-m", "benchmarks.losses", loss, provider, str(batch)]
    # A fixed threshold lets glibc return each large block when it is freed: what is resident is then in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**16)}
    root = Path(__file__).parents[1]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=environment)
    return float(run.stdout)


def _main(loss: str, provider: str, batch: str) -> None:
    case = LOSSES[loss]
    run = case.providers[provider].run
    gradients(run, case.inputs(64, "cpu"))  # loads what is loaded once
    inputs = case.inputs(int(batch), "cpu")
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts from here
    kept = gradients(run, inputs)
    print(_resident("VmHWM") - before)
    del kept


def _resident(kind: str) -> float:
    """Return the resident memory, now (VmRSS) or at its peak (VmHWM), in MiB."""
    found = re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    _main(*sys.argv[1:])
