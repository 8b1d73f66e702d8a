"""What a folder's name says of the generator whose images it holds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bmrl.generators import Generator

if TYPE_CHECKING:
    from bmrl.generators import Architecture, Manipulation

__all__ = ["known_family", "names_photographs"]

# The seen and unseen generators of arXiv:2504.14129, the methods of DF40 (arXiv:2406.13495) and FaceForensics++ in the
# spellings of their folders, and a few more. The manipulation is what the data set made with the method; the
# architecture is inferred from the method's own publication: "autoencoder" is a decoder trained to reconstruct,
# without an adversary. Left out, so that an import asks: names that mean several methods ("FaceSwap", "Deepfakes") and
# services that say nothing of their models ("MidJourney", "HeyGen"). Case and punctuation do not count.
_KNOWN: dict[tuple[Manipulation, Architecture], str] = {
    ("EFS", "GAN"): "PGGAN ProGAN StyleGAN StyleGAN2 StyleGAN3 StyleGAN-XL VQGAN whichfaceisreal whichisreal",
    ("EFS", "diffusion"): (
        "DDPM DDIM RDDM LatDiff CollDiff CollabDiff Collaborative_Diffusion SD-2.1 PixArt PixArt-alpha DiT DiT-XL/2 "
        "SiT SiT-XL/2"
    ),
    ("EFS", "flow"): "Glow",
    ("EFS", "autoregressive"): "LlamaGen VAR",
    ("AM", "GAN"): "LatTrans StarGAN StarGANv2 StyleCLIP e4e",
    ("AM", "diffusion"): "Diffae",
    ("FS", "GAN"): (
        "FSLSD FaceSwapper SimSwap InSwapper InSwap UniFace e4s FSGAN BlendFace MobileSwap MobileFaceSwap FaceDancer "
        "FaceShifter"
    ),
    ("FS", "diffusion"): "DiffFace REFace",
    ("FS", "autoencoder"): "DeepFaceLab",
    ("FR", "GAN"): (
        "FS_vid2vid FaceVid2Vid OneShot one_shot_free Wav2Lip LIA DaGAN danet SadTalker HyperReenact NeuralTextures"
    ),
    ("FR", "autoencoder"): "FOMM MRAA TPSM TPSMM PIRender MCNet",
    ("FR", "graphics"): "Face2Face",
    ("none", "none"): "CelebA CelebA-HQ FFHQ",
}

_REAL = frozenset(("real", "reals"))
_MADE = re.compile(
    r"fake|swap|gan|diff|synth|gener|edit|manip|^(not|non|un|and|vs|or|ai|vis|visxl|nvp|time|sd[0-9]*|sdxl|xl|flux)$"
)


def known_family(name: str) -> Generator | None:
    """Return the generator of this name if it is a published one or the name says "photographs", else None.

    Example:
        >>> known_family("sd2.1")
        Generator(name='sd2.1', manipulation='EFS', architecture='diffusion')
    """
    family = _BY_LETTERS.get(_letters(name)) or (("none", "none") if names_photographs(name) else None)
    return family and Generator(name=name, manipulation=family[0], architecture=family[1])


def names_photographs(name: str) -> bool:
    """Whether a folder of this name holds photographs: its first or last word is "real", and no word is a generator's.

    Words are what punctuation separates; numbers in front do not count. So ``realistic_vision``, ``RealVisXL`` and
    ``real_esrgan`` are none.

    Example:
        >>> [name for name in ("real_ffhq", "0_Real_FF++", "celeba_real", "RealVisXL") if names_photographs(name)]
        ['real_ffhq', '0_Real_FF++', 'celeba_real']
    """
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word]
    while words and words[0].isdigit():
        del words[0]
    return bool(words) and bool(_REAL & {words[0], words[-1]}) and not any(map(_MADE.search, words))


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


_BY_LETTERS = {_letters(name): family for family, names in _KNOWN.items() for name in names.split()}
