from __future__ import annotations

import pytest

from bmrl.data.importers.known import known_family


@pytest.mark.parametrize(
    ("names", "family"),
    [
        ("StyleGAN2 stylegan3 StyleGANXL stylegan-xl VQGAN whichfaceisreal whichisreal", ("EFS", "GAN")),
        ("DDPM LatDiff CollDiff CollabDiff SD-2.1 sd2.1 sd21 SD_2.1 DiT SiT ddim RDDM pixart", ("EFS", "diffusion")),
        ("Glow", ("EFS", "flow")),
        ("LlamaGen VAR", ("EFS", "autoregressive")),
        ("LatTrans stargan starganv2 styleclip e4e", ("AM", "GAN")),
        ("Diffae DiffAE", ("AM", "diffusion")),
        ("FSLSD FaceSwapper SimSwap simswap InSwapper inswap UniFace uniface e4s", ("FS", "GAN")),
        ("fsgan blendface mobileswap facedancer FaceShifter", ("FS", "GAN")),
        ("deepfacelab", ("FS", "autoencoder")),
        ("facevid2vid fs_vid2vid one_shot_free OneShot wav2lip lia danet DaGAN sadtalker", ("FR", "GAN")),
        ("hyperreenact NeuralTextures", ("FR", "GAN")),
        ("fomm MRAA mraa tpsm TPSMM pirender mcnet", ("FR", "autoencoder")),
        ("Face2Face", ("FR", "graphics")),
        ("DiffFace REFace", ("FS", "diffusion")),
        ("real real_ffhq Real-2 CelebA-HQ FFHQ celeba", ("none", "none")),
        ("0_Real_FF++ 0_Real_CelebDF Real reals celeba_real 00-real real_faces FF++_real", ("none", "none")),
    ],
)
def test_known_names(names, family):
    for name in names.split():
        generator = known_family(name)
        assert generator is not None
        assert (generator.name, generator.manipulation, generator.architecture) == (name, *family)


@pytest.mark.parametrize(
    "name",
    [
        *("FaceSwap", "Deepfakes", "MidJourney", "heygen", "unreal", "sd3", "dit2"),
        *(
            "realistic_vision",
            "RealVisXL",
            "Realistic-Vision-v5",
            "surreal",
            "realvisxl",
            "RealNVP",
            "realness",
            "real2sim",
        ),
        *("real_esrgan", "Real-ESRGAN", "real_vis_xl", "real_and_fake", "not_real", "my_real_images", "real_time_swap"),
        *("12", "_", "", "fake_real"),
    ],
)
def test_other_names_are_not_guessed(name):
    assert known_family(name) is None
