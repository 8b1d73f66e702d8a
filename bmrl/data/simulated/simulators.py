"""The table of simulated generators: who uses which mechanism, and who is kept for the test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bmrl.data.simulated import decoders, denoisers
from bmrl.data.simulated.camera import photograph
from bmrl.data.simulated.manipulations import Scene, Trace, edit, swap, synthesize

if TYPE_CHECKING:
    import numpy as np

    from bmrl.data.simulated.faces import Face

__all__ = ["SIMULATORS", "Simulator"]

_COMPOSE = {"none": synthesize, "EFS": synthesize, "AM": edit, "FS": swap}


@dataclass(frozen=True, slots=True)
class Simulator:
    """A simulated generator, or the simulated camera.

    Attributes:
        name: its label, ``sim_...``.
        manipulation: ``none`` (the camera), ``EFS``, ``AM`` or ``FS``.
        architecture: ``none`` (the camera), ``GAN`` or ``diffusion``.
        role: ``seen``, or ``unseen`` (test only).
        description: its mechanism in a few words; the function ``trace`` names the source.
        trace: turns content into an image with this mechanism's trace.
    """

    name: str
    manipulation: str
    architecture: str
    role: str
    description: str
    trace: Trace

    def draw(self, scene: Scene, rng: np.random.Generator) -> Face:
        """Return the image ``(size, size, 3)`` of a scene, float32 and about in [0, 1], with its parsing map."""
        return _COMPOSE[self.manipulation](scene, self.trace, rng)


_TABLE: tuple[tuple[str, str, str, str, str, Trace], ...] = (
    ("sim_camera", "none", "none", "seen", "Bayer mosaic, shot noise, mild JPEG or none", photograph),
    ("sim_transposed", "EFS", "GAN", "seen", "transposed convolution, stride 2", decoders.transposed),
    ("sim_nearest", "EFS", "GAN", "seen", "nearest-neighbor up-sampling, 3 x 3 convolution", decoders.nearest),
    ("sim_shuffle", "EFS", "GAN", "seen", "sub-pixel convolution, factor 2", decoders.pixel_shuffle),
    ("sim_denoised", "EFS", "diffusion", "seen", "iterated noise and denoising", denoisers.denoised),
    ("sim_latent", "EFS", "diffusion", "seen", "latent grid of 8 x 8 pixels", denoisers.latent_grid),
    ("sim_edit_shuffle3", "AM", "GAN", "seen", "region by sub-pixel convolution, factor 3", decoders.pixel_shuffle_3),
    ("sim_edit_noise", "AM", "diffusion", "seen", "region from a half-noised start", denoisers.partial_noise),
    ("sim_swap_resampled", "FS", "GAN", "seen", "face drawn small and warped back", decoders.resampled),
    ("sim_swap_latent4", "FS", "diffusion", "seen", "face from a latent grid of 4 x 4", denoisers.latent_grid_4),
    ("sim_transposed4", "EFS", "GAN", "unseen", "transposed convolution, stride 4", decoders.transposed_4),
    ("sim_codebook", "EFS", "GAN", "unseen", "vector-quantized 2 x 2 squares", decoders.codebook),
    ("sim_flow", "EFS", "diffusion", "unseen", "few solver steps, white noise left", denoisers.euler_steps),
    ("sim_edit_shuffle4", "AM", "GAN", "unseen", "region by sub-pixel convolution, factor 4", decoders.pixel_shuffle_4),
    ("sim_swap_enhanced", "FS", "GAN", "unseen", "face sharpened by a restorer", decoders.enhanced),
    ("sim_swap_blots", "FS", "diffusion", "unseen", "face with latent noise left", denoisers.latent_noise),
)

SIMULATORS = tuple(Simulator(*entry) for entry in _TABLE)
"""All simulators: ten seen, of which one is a camera, and six unseen, whose families but not mechanisms are seen."""
