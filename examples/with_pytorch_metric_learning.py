"""The DFACC loss together with one of pytorch-metric-learning: both take embeddings and labels, so they simply add.

Needs torch, bmrl.losses and pytorch-metric-learning (pip install pytorch-metric-learning).
"""

import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import NTXentLoss

from bmrl.losses import DFACCLoss

NUM_GENERATORS, WIDTH, EMBED_DIM, STEPS = 4, 20, 16, 60

torch.manual_seed(0)
prototypes = torch.randn(NUM_GENERATORS, WIDTH)
net = torch.nn.Sequential(torch.nn.Linear(WIDTH, 64), torch.nn.ReLU(), torch.nn.Linear(64, EMBED_DIM))
theirs = NTXentLoss(temperature=0.1)  # pulls samples of one generator together, pushes all others away
ours = DFACCLoss(NUM_GENERATORS, EMBED_DIM)  # lets related generators stay close
optimizer = torch.optim.Adam(
    [{"params": net.parameters()}, {"params": ours.parameters(), "lr": 0.05}],
    lr=1e-3,
)
for step in range(STEPS):
    labels = torch.randint(NUM_GENERATORS, (64,))
    embeddings = F.normalize(net(prototypes[labels] + torch.randn(64, WIDTH)), dim=1)
    loss = theirs(embeddings, labels) + ours(embeddings, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 15 == 0 or step == STEPS - 1:
        nearest = torch.cdist(embeddings, ours.centers).argmin(1)
        print(f"step {step:2d}  loss {loss.item():.3f}  nearest center right {(nearest == labels).float().mean():.2f}")
