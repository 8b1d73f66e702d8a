"""One of several processes that call a loss in ways that do not fit together; started by torchrun.

Its argument: a file for what each call said.
"""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist

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

ROWS, WIDTH, GENERATORS = 4, 3, 2


def rows(width=WIDTH, dtype=torch.float32, count=ROWS):
    return torch.ones(count, width, dtype=dtype)


LABELS, MASK, CENTERS = torch.tensor([0, 1, 0, 1]), torch.ones(ROWS, dtype=torch.bool), torch.eye(GENERATORS, WIDTH)
ALL = {"gather": True}


def objective(changes=None, **options):
    """The loss of an output, some parts of which were changed."""
    config = SimpleNamespace(num_generators=GENERATORS, embed_dim=WIDTH)
    output = {
        "logits": rows(GENERATORS),
        "probabilities": rows(GENERATORS) / GENERATORS,
        "embedding": rows(),
        "predicted_language": rows(),
        "parsing": rows(),
        "language": rows(),
        "parsing_mask": MASK,
    }
    return BMRLObjective(config, gather=True, **options)(SimpleNamespace(**output | (changes or {})), LABELS)


# For each case: what the first process calls, and what all others do.
CASES = {
    "width": (lambda: dfacc_loss(rows(), LABELS, CENTERS, **ALL), lambda: dfacc_loss(rows(4), LABELS, CENTERS, **ALL)),
    "dtype": (
        lambda: dfacc_terms(rows(), LABELS, CENTERS, **ALL),
        lambda: dfacc_terms(rows(dtype=torch.float64), LABELS, CENTERS, **ALL),
    ),
    "dtype of the labels": (
        lambda: DFACCLoss(GENERATORS, WIDTH, **ALL)(rows(), LABELS),
        lambda: DFACCLoss(GENERATORS, WIDTH, **ALL)(rows(), LABELS.int()),
    ),
    "margin": (
        lambda: dfacc_loss(rows(), LABELS, CENTERS, margin=0.7, **ALL),
        lambda: dfacc_loss(rows(), LABELS, CENTERS, margin=0.5, **ALL),
    ),
    "a margin that is not a number": (
        lambda: dfacc_loss(rows(), LABELS, CENTERS, margin=0.7, **ALL),
        lambda: dfacc_loss(rows(), LABELS, CENTERS, margin="x", **ALL),
    ),
    "number of centers": (
        lambda: ContrastiveCenterLoss(GENERATORS, WIDTH, **ALL)(rows(), LABELS),
        lambda: ContrastiveCenterLoss(GENERATORS + 1, WIDTH, **ALL)(rows(), LABELS),
    ),
    "delta": (
        lambda: contrastive_center_loss(rows(), LABELS, CENTERS, delta=1.0, **ALL),
        lambda: contrastive_center_loss(rows(), LABELS, CENTERS, delta=2, **ALL),
    ),
    "centers": (
        lambda: contrastive_center_loss(rows(), LABELS, CENTERS, **ALL),
        lambda: contrastive_center_loss(rows(), LABELS, CENTERS.double(), **ALL),
    ),
    "rows of one process": (
        lambda: CPCLoss(**ALL)(rows(), rows()),
        lambda: CPCLoss(**ALL)(rows(), rows(count=ROWS + 1)),
    ),
    "no tensor": (lambda: CPCLoss(**ALL)(rows(), rows()), lambda: CPCLoss(**ALL)(rows(), [1.0])),
    "nothing at all": (lambda: CPCLoss(**ALL)(rows(), rows()), lambda: CPCLoss(**ALL)(None, None)),
    "a number": (lambda: CPCLoss(**ALL)(rows(), rows()), lambda: CPCLoss(**ALL)(rows(), torch.tensor(1.0))),
    "mask": (lambda: CPCLoss(**ALL)(rows(), rows(), mask=MASK), lambda: CPCLoss(**ALL)(rows(), rows())),
    "labels": (
        lambda: contrastive_loss(rows(), rows(), LABELS, **ALL),
        lambda: contrastive_loss(rows(), rows(), **ALL),
    ),
    "labels or mask": (
        lambda: contrastive_loss(rows(), rows(), LABELS, **ALL),
        lambda: contrastive_loss(rows(), rows(), mask=MASK, **ALL),
    ),
    "gate": (
        lambda: contrastive_loss(rows(), rows(), gate=torch.zeros(16, 16), **ALL),
        lambda: contrastive_loss(rows(), rows(), **ALL),
    ),
    "temperature": (
        lambda: contrastive_loss(rows(), rows(), temperature=torch.tensor(0.5), **ALL),
        lambda: contrastive_loss(rows(), rows(), temperature=0.5, **ALL),
    ),
    "pair attention": (
        lambda: CMCLoss(spa_batch_size=16, **ALL)(rows(), rows()),
        lambda: CMCLoss(**ALL)(rows(), rows()),
    ),
    "direction": (
        lambda: LanguageAlignmentLoss(direction="forward", **ALL)(rows(), rows()),
        lambda: LanguageAlignmentLoss(direction="reverse", **ALL)(rows(), rows()),
    ),
    "detach": (
        lambda: language_alignment_loss(rows(), rows(), **ALL),
        lambda: language_alignment_loss(rows(), rows(), detach=True, **ALL),
    ),
    "two losses": (
        lambda: LanguageAlignmentLoss(**ALL)(rows(), rows()),
        lambda: contrastive_loss(rows(), rows(), **ALL),
    ),
    "parsing": (objective, lambda: objective({"parsing": None})),
    "language instead of parsing": (lambda: objective({"parsing": None}), lambda: objective({"language": None})),
    "parsing mask": (objective, lambda: objective({"parsing_mask": None})),
    "dtype of the parsing": (objective, lambda: objective({"parsing": rows(dtype=torch.float64)})),
    "weights": (objective, lambda: objective(weights={"kl": 0})),
    "terms without parameters": (objective, lambda: objective(weights={"cmc": 0, "cpc": 0})),
    "metric loss": (objective, lambda: objective(metric_loss="vcc")),
    "margin of the objective": (objective, lambda: objective(margin=0.5)),
    "smoothing": (objective, lambda: objective(label_smoothing=0.5)),
    "a value that is not a number": (
        lambda: dfacc_loss(rows(), LABELS, CENTERS, **ALL),
        lambda: dfacc_loss(rows() / 0, LABELS, CENTERS, **ALL),
    ),
    "a label out of range": (
        lambda: dfacc_loss(rows(), LABELS, CENTERS, **ALL),
        lambda: dfacc_loss(rows(), LABELS + 7, CENTERS, **ALL),
    ),
}


def said(call):
    try:
        call()
    except Exception as error:  # what it is, the test judges
        return f"{type(error).__name__}: {error}"
    return "nothing"


def by_groups():
    """Losses of the even and of the odd processes, each group by itself; and what a process outside a group hears."""
    world, rank = dist.get_world_size(), dist.get_rank()
    groups = [dist.new_group([r for r in range(world) if r % 2 == parity]) for parity in (0, 1)]
    own, other = groups[rank % 2], groups[1 - rank % 2]
    torch.manual_seed(rank)
    embeddings = torch.randn(rank + 1, WIDTH, requires_grad=True)
    loss = DFACCLoss(GENERATORS, WIDTH, gather=True, group=own)
    labels = torch.arange(rank + 1) % 2
    value = loss(embeddings, labels)
    value.backward()
    return {
        "embeddings": embeddings.tolist(),
        "labels": labels.tolist(),
        "centers": loss.centers.tolist(),
        "value": value.item(),
        "gradient": embeddings.grad.tolist(),
        "function": dfacc_loss(embeddings, labels, loss.centers, gather=True, group=own).item(),
        "disagreement": said(lambda: dfacc_loss(embeddings, labels, loss.centers, margin=rank, gather=True, group=own)),
        "outsider": said(lambda: DFACCLoss(GENERATORS, WIDTH, gather=True, group=other)),
    }


def main():
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    first = dist.get_rank() == 0
    answers = {name: said(one if first else others) for name, (one, others) in CASES.items()}
    # All is well again afterwards.
    well = said(objective)
    answers = {"answers": answers, "afterwards": well, "groups": by_groups()}
    Path(f"{sys.argv[1]}.{dist.get_rank()}").write_text(json.dumps(answers))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
