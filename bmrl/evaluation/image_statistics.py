"""Twenty-six numbers about the color and the spectrum of an image: enough for a shortcut."""

from __future__ import annotations

import torch
from torch import Tensor

from bmrl._checks import check_images

__all__ = ["color_spectrum_statistics"]

PERCENTILES = (0.05, 0.95)
NUM_BANDS = 11
LUMA = (0.299, 0.587, 0.114)  # BT.601


def color_spectrum_statistics(images: Tensor) -> Tensor:
    """Return 26 statistics per image, which do not depend on where anything is in it.

    In order: mean (3), standard deviation (3), 5% and 95% percentile (6) of each channel in [0, 1]; the correlations
    RG, RB, GB (3; 0 where a channel is constant); and the log10 mean power of the luma's spectrum, under a Hann window
    and without the mean, in 11 rings of equal width from frequency 0 to 0.5 cycles per pixel (11; the corners beyond
    are left out, the floor of an empty spectrum is -12).

    Args:
        images: ``(batch, 3, height, width)``, uint8, or floating point in [0, 1]; square or not.

    Returns:
        ``(batch, 26)`` float32 on the device of ``images``.

    Raises:
        ShapeError, DTypeError: ``images`` is not such a tensor.

    Example:
        >>> color_spectrum_statistics(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([2, 26])
    """
    check_images("images", images, channels=3)
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    flat = pixels.flatten(2)
    percentiles = flat.sort(dim=2).values[:, :, [round(share * (flat.shape[2] - 1)) for share in PERCENTILES]]
    deviations = flat - flat.mean(dim=2, keepdim=True)
    covariance = deviations @ deviations.mT / flat.shape[2]
    std = covariance.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    scale = std[:, :, None] * std[:, None, :]
    correlation = torch.where(scale > 1e-8, covariance / scale.clamp(min=1e-8), 0)
    pairs = torch.stack([correlation[:, 0, 1], correlation[:, 0, 2], correlation[:, 1, 2]], dim=1)
    return torch.cat([flat.mean(dim=2), std, percentiles.flatten(1), pairs, _log_power(pixels)], dim=1)


def _log_power(pixels: Tensor) -> Tensor:
    """Return ``(batch, 11)``: the log10 mean power of the luma in rings of the frequency plane."""
    height, width = pixels.shape[2:]
    luma = torch.einsum("bchw,c->bhw", pixels, torch.tensor(LUMA, device=pixels.device))
    luma = luma - luma.mean(dim=(1, 2), keepdim=True)
    rows = torch.hann_window(height, periodic=False, device=pixels.device)
    columns = torch.hann_window(width, periodic=False, device=pixels.device)
    spectrum = torch.fft.fft2(luma * rows[:, None] * columns[None, :])
    power = spectrum.abs().square().flatten(1) / (height * width)
    vertical = torch.fft.fftfreq(height, dtype=torch.float64)
    horizontal = torch.fft.fftfreq(width, dtype=torch.float64)
    radius = (vertical[:, None].square() + horizontal[None, :].square()).sqrt().flatten()
    ring = (radius * 2 * NUM_BANDS + 1e-9).long()  # a frequency on a border belongs to the outer ring
    inside = (radius > 0) & (ring < NUM_BANDS)
    weights = torch.nn.functional.one_hot(ring[inside], NUM_BANDS).to(pixels.device, torch.float32)
    means: Tensor = power[:, inside.to(pixels.device)] @ weights / weights.sum(dim=0).clamp(min=1)
    return means.clamp(min=1e-12).log10()
