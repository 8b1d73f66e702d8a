"""Each part of the library is of use without the others: in someone else's model, transform or data loader."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from bmrl.encoders import ConvTransformerConfig, NoiseEncoder, build_encoder
from bmrl.losses import CPCLoss, DFACCLoss
from bmrl.models import View
from bmrl.ops import Sobel, views

SMALL = {"embed_dim": 16, "channels": (4, 8), "convs_per_stage": (1, 1), "num_blocks": 1, "num_heads": 2, "mlp_dim": 16}
IMAGES = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1] * 4)


def falls(parameters, step, steps=30, rate=1e-2):
    """Whether a loss falls by a tenth of the loss before, or more, when it is minimized."""
    optimizer = torch.optim.Adam(parameters, lr=rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = step()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[-1] < losses[0] - 0.1 * abs(losses[0])


def test_the_noise_encoder_under_another_head():
    torch.manual_seed(0)
    model = nn.Sequential(NoiseEncoder(16, **SMALL), nn.ReLU(), nn.Linear(16, 2))
    noise = views(IMAGES, patch_size=16).noise
    assert falls(model.parameters(), lambda: nn.functional.cross_entropy(model(noise), LABELS))


@pytest.mark.parametrize("kind", ["torchvision"])
def test_the_losses_on_somebodys_vit(kind):
    transformer = pytest.importorskip(f"{kind}.models.vision_transformer")
    torch.manual_seed(0)
    vit = transformer.VisionTransformer(32, 8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=16)
    dfacc, cpc = DFACCLoss(num_generators=2, embed_dim=16), CPCLoss()
    partners = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))

    def step():
        embeddings = nn.functional.normalize(vit(IMAGES / 255), dim=-1)
        return dfacc(embeddings, LABELS) + cpc(embeddings, partners, LABELS)

    parameters = [*vit.parameters(), *dfacc.parameters(), *cpc.parameters()]
    assert falls(parameters, step, rate=3e-3)


class Views(nn.Module):
    """The three views of an image, as a transform of torchvision v2."""

    def forward(self, image):
        return [view[0] for view in views(image[None], patch_size=16)]


def test_views_in_a_torchvision_transform():
    v2 = pytest.importorskip("torchvision.transforms.v2")
    transform = v2.Compose([v2.ToImage(), v2.RandomHorizontalFlip(p=1.0), Views()])
    expected = views(IMAGES[:1].flip(-1), patch_size=16)
    for got, view in zip(transform(IMAGES[0]), expected, strict=True):
        torch.testing.assert_close(torch.Tensor(got), view[0])


class Seen(Dataset):
    """Images that become views in the worker that reads them."""

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, index):
        return Views()(IMAGES[index])


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_views_in_the_worker_of_a_loader(context):
    loader = DataLoader(Seen(), batch_size=4, num_workers=1, multiprocessing_context=context)
    batches = [torch.cat(parts) for parts in zip(*loader, strict=True)]
    for got, view in zip(batches, views(IMAGES, patch_size=16), strict=True):
        torch.testing.assert_close(got, view)


def test_views_of_the_batches_of_a_loader():
    (images, labels) = next(iter(DataLoader(TensorDataset(IMAGES, LABELS), batch_size=8)))
    assert views(images, patch_size=16).edge.shape == (len(labels), 1, 32, 32)


def test_a_view_is_a_model_of_its_own():
    torch.manual_seed(0)
    view = View(Sobel(), build_encoder(ConvTransformerConfig(**{k: v for k, v in SMALL.items() if k != "embed_dim"}),
                                       1, 32, 16))  # fmt: skip
    head = nn.Linear(16, 2)
    parameters = [*view.parameters(), *head.parameters()]
    assert falls(parameters, lambda: nn.functional.cross_entropy(head(view(IMAGES)), LABELS))
