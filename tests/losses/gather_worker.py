"""One of several processes that train on parts of a batch; started by torchrun from test_gather.py.

Its arguments: a file for its results, and how many rows each process has.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from bmrl.errors import ShapeError
from bmrl.losses import (
    BMRLObjective,
    CMCLoss,
    ContrastiveCenterLoss,
    CPCLoss,
    DFACCLoss,
    LanguageAlignmentLoss,
    dfacc_loss,
)

GENERATORS, WIDTH = 4, 5
LEARNING_RATE = 0.1
STEPS = 3


class Pairs(nn.Module):
    """A loss of two embeddings, with labels and a mask where it knows them."""

    def __init__(self, loss, *, masked=False, labeled=True):
        super().__init__()
        self.loss, self.masked, self.labeled = loss, masked, labeled

    def forward(self, net, images, labels):
        options = {"mask": labels != 1} if self.masked else {}
        arguments = (labels,) if self.labeled else ()
        return self.loss(net(images), net(images.flip(1)), *arguments, **options)


class Clusters(nn.Module):
    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, net, images, labels):
        return self.loss(F.normalize(net(images)), labels)


class Objective(nn.Module):
    def __init__(self, **options):
        super().__init__()
        config = SimpleNamespace(num_generators=GENERATORS, embed_dim=WIDTH)
        self.loss = BMRLObjective(config, **options)

    def forward(self, net, images, labels):
        embedding = F.normalize(net(images))
        logits = embedding[:, :GENERATORS] * 3
        output = SimpleNamespace(
            logits=logits,
            probabilities=logits.softmax(1),
            embedding=embedding,
            predicted_language=net(images.flip(1)),
            parsing=net(images.roll(1, 1)),
            parsing_mask=labels != 1,
            language=net(images.roll(2, 1)),
        )
        return self.loss(output, labels).total


WRAPPINGS = ("DDP around the network", "DDP around all", "FSDP")
CASES = {
    "dfacc": lambda **gather: Clusters(DFACCLoss(GENERATORS, WIDTH, **gather)),
    "dfacc in chunks": lambda **gather: Clusters(DFACCLoss(GENERATORS, WIDTH, chunk_rows=2, **gather)),
    "vcc": lambda **gather: Clusters(ContrastiveCenterLoss(GENERATORS, WIDTH, reduction="mean", **gather)),
    "cpc": lambda **gather: Pairs(CPCLoss(**gather), masked=True),
    "cpc in chunks": lambda **gather: Pairs(CPCLoss(chunk_rows=3, **gather)),
    "cmc": lambda **gather: Pairs(CMCLoss(targets="same_label", spa_batch_size=12, **gather)),
    "kl": lambda **gather: Pairs(LanguageAlignmentLoss(**gather), labeled=False),
    "objective": lambda **gather: Objective(**gather),
    "objective on probabilities": lambda **gather: Objective(dfacc_on="probability", metric_loss="vcc", **gather),
}


class Together(nn.Module):
    """A network and its loss, as DistributedDataParallel needs them: one module, one forward."""

    def __init__(self, net, loss):
        super().__init__()
        self.net, self.loss = net, loss

    def forward(self, images, labels):
        return self.loss(self.net, images, labels)


def batches(rows):
    rng = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(rows, WIDTH, generator=rng, dtype=torch.float64),
            torch.randint(GENERATORS, (rows,), generator=rng),
        )
        for _ in range(STEPS)
    ]


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(WIDTH, 7), nn.Tanh(), nn.Linear(7, WIDTH)).double()


def whole(tensor):
    """A copy that knows nothing of shards."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


def train(forward, parameters, batches):
    """Values of the loss, gradients of the first step, and the parameters after the last."""
    optimizer = torch.optim.SGD(parameters.values(), lr=LEARNING_RATE)
    values, gradients = [], {}
    for images, labels in batches:
        optimizer.zero_grad()
        value = forward(images, labels)
        value.backward()
        values.append(value.detach())
        gradients = gradients or {name: whole(parameter.grad) for name, parameter in parameters.items()}
        optimizer.step()
    final = {name: whole(parameter.detach()) for name, parameter in parameters.items()}
    return {"values": torch.stack(values), "gradients": gradients, "final": final}


def run_alone(name, rows):
    """One process with the whole batch."""
    net, loss = network(0), CASES[name](gather=False).double()
    together = Together(net, loss)
    return train(together, dict(together.named_parameters()), batches(rows))


def run_together(name, lengths, wrapping):
    """This process with its part. Only the first starts from the weights that count."""
    rank = dist.get_rank()
    own = slice(sum(lengths[:rank]), sum(lengths[: rank + 1]))
    net = network(0 if wrapping == "FSDP" else rank)
    loss = CASES[name](gather=True).double()
    parts = [(images[own], labels[own]) for images, labels in batches(sum(lengths))]
    together = Together(net, loss)
    if wrapping == "FSDP":  # shards what it finds, so that it has to find the same everywhere
        together = fully_shard(together, mesh=init_device_mesh("cpu", (len(lengths),)))
    parameters = dict(together.named_parameters())
    if wrapping == "DDP around the network":
        wrapped = DistributedDataParallel(net)
        return train(lambda images, labels: loss(wrapped, images, labels), parameters, parts)
    return train(DistributedDataParallel(together) if wrapping == "DDP around all" else together, parameters, parts)


def refusal():
    """What the processes say when the widths of their embeddings differ."""
    rank = dist.get_rank()
    try:
        dfacc_loss(torch.zeros(2, 3 + rank), torch.zeros(2, dtype=torch.int64), torch.zeros(2, 3), gather=True)
    except ShapeError as error:
        return str(error)
    return "nothing"


def main():
    out, *lengths = sys.argv[1:]
    lengths = [int(length) for length in lengths]
    dist.init_process_group("gloo")
    results = {(name, wrapping): run_together(name, lengths, wrapping) for name in CASES for wrapping in WRAPPINGS}
    torch.save({"results": results, "refusal": refusal()}, Path(f"{out}.{dist.get_rank()}"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
