"""A plain torchvision classifier with the DFACC loss: needs torch, torchvision and bmrl.losses, nothing else of bmrl.

The images are noise whose color depends on the class, so that the example runs anywhere in seconds.
"""

import torch
import torch.nn.functional as F
from torchvision.models import resnet18

from bmrl.losses import DFACCLoss

NUM_GENERATORS, STEPS = 4, 20


def draw(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images ``(batch, 3, 32, 32)`` and their labels; replace it by your data loader."""
    labels = torch.randint(NUM_GENERATORS, (batch,))
    return torch.randn(batch, 3, 32, 32) + F.one_hot(labels, NUM_GENERATORS)[:, :3, None, None], labels


torch.manual_seed(0)
backbone = resnet18(num_classes=64)  # its last layer makes the embedding
head = torch.nn.Linear(64, NUM_GENERATORS)
dfacc = DFACCLoss(NUM_GENERATORS, embed_dim=64)
optimizer = torch.optim.AdamW(
    [
        {"params": [*backbone.parameters(), *head.parameters()]},
        {"params": dfacc.parameters(), "lr": 50 * 1e-3, "weight_decay": 0.0},  # the centers
    ],
    lr=1e-3,
)
for step in range(STEPS):
    images, labels = draw(32)
    embeddings = F.normalize(backbone(images), dim=1)  # bounded, so that pushing apart ends
    loss = F.cross_entropy(head(embeddings) * 10, labels) + dfacc(embeddings, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 5 == 0 or step == STEPS - 1:
        print(f"step {step:2d}  loss {loss.item():.3f}")
