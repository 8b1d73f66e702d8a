"""Where trainable centers start."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bmrl._values import check_choice
from bmrl.losses._arguments import check_count

CenterInit = Literal["sphere", "simplex"]


def random_centers(num_generators: int, embed_dim: int, init: CenterInit) -> Tensor:
    """Centers to start from: ``(num_generators, embed_dim)`` in PyTorch's default dtype.

    ``"sphere"`` draws unit vectors, the place of L2-normalized embeddings; ``"simplex"`` draws probability vectors,
    uniformly. A standard normal start would put centers some ``sqrt(2 * embed_dim)`` apart, where no pair of them
    is ever closer than a margin near 1.
    """
    check_count("num_generators", num_generators)
    check_count("embed_dim", embed_dim)
    check_choice("init", init, ("sphere", "simplex"))
    if init == "simplex":
        return F.normalize(torch.empty(num_generators, embed_dim).exponential_(), p=1.0, dim=-1)
    return F.normalize(torch.randn(num_generators, embed_dim), dim=-1)
