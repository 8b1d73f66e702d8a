"""Random changes of training pictures: drawn by seed, epoch and index alone, and parsing maps in step."""

from __future__ import annotations

import dataclasses
import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from bmrl.errors import ConfigError
from bmrl.training import TrainingConfig
from bmrl.training.loading import training_loader
from bmrl.training.picture_augmentation import AugmentationConfig, AugmentedFaces, augment

SIZE = 32
ALWAYS = {"compress": 1, "rescale": 1, "crop": 1, "blur": 1, "sharpen": 1, "noise": 1, "color": 1}


def picture(seed=0, size=SIZE):
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return torch.from_numpy(np.array(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC))).permute(
        2, 0, 1
    )


def samples(count=12):
    maps = torch.arange(SIZE * SIZE).reshape(SIZE, SIZE).remainder(19).to(torch.uint8)
    return [
        {"image": picture(index), "parsing": maps.clone(), "label": index, "index": index} for index in range(count)
    ]


def changed(seed=0, image=None, parsing=None, **fields):
    image = picture() if image is None else image
    parsing = torch.zeros(image.shape[1:], dtype=torch.uint8) if parsing is None else parsing
    return augment(image, parsing, AugmentationConfig(**fields), rng=np.random.default_rng(seed))


@pytest.mark.parametrize("name", ALWAYS)
def test_each_probability_turns_one_change_on(name):
    image, _ = changed(**{name: 1})
    assert (image.shape, image.dtype) == (picture().shape, torch.uint8)
    assert not torch.equal(image, picture())
    assert torch.equal(changed(**{name: 0})[0], picture())


def test_a_probability_is_that_of_a_change():
    counts = sum(not torch.equal(changed(seed, rescale=0.3)[0], picture()) for seed in range(300))
    assert 60 < counts < 120  # 90, 3.8 deviations


def test_strengths_bound_the_changes(monkeypatch):
    from bmrl.data import alterations

    drawn = {"quality": [], "factor": [], "offset": [], "codec": []}
    recompress, rescale = alterations.recompress, alterations.rescale

    def recompressing(image, quality, **options):
        drawn["quality"].append(quality)
        drawn["codec"].append((options["codec"], options["subsampling"]))
        drawn["offset"].append(options["offset"])
        return recompress(image, quality, **options)

    def rescaling(image, factor, **options):
        drawn["factor"].append(factor)
        return rescale(image, factor, **options)

    monkeypatch.setattr(alterations, "recompress", recompressing)
    monkeypatch.setattr(alterations, "rescale", rescaling)
    for seed in range(300):
        changed(seed, compress=1, rescale=1, least_quality=40, most_quality=60, least_scale=0.5, webp=0.5)
    assert (min(drawn["quality"]), max(drawn["quality"])) == (40, 60)
    assert 0.5 <= min(drawn["factor"]) < 0.52
    assert 0.98 < max(drawn["factor"]) <= 1
    assert set(drawn["codec"]) == set(itertools.product(("jpeg", "webp"), ("4:4:4", "4:2:0")))
    assert len(set(drawn["offset"])) > 50
    assert 300 < len(drawn["quality"]) < 480  # 30 % twice


def test_maps_follow_the_crop():
    """A picture whose red channel is its own map: the two agree afterwards, but for the border of the classes."""
    parsing = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
    parsing[8:20, 10:25] = 18
    image = torch.stack((parsing * 14, parsing, parsing))
    cut = 0
    for seed in range(40):
        altered, mapped = changed(seed, image=image, parsing=parsing, crop=1, least_crop=0.7)
        inside = (altered[0] > 240) | (altered[0] < 10)  # away from an edge that was interpolated
        assert torch.equal(mapped[inside] == 18, altered[0][inside] > 126)
        assert inside.float().mean() > 0.8
        cut += not torch.equal(mapped, parsing)
    assert cut > 30


def test_only_the_crop_moves_the_map():
    parsing = samples(1)[0]["parsing"]
    fields = {name: 1 for name in ALWAYS if name != "crop"} | {"container": True}
    for seed in range(10):
        assert torch.equal(changed(seed, parsing=parsing, **fields)[1], parsing)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(workers):
    config = AugmentationConfig.lived()

    def batches(workers):
        loader = training_loader(samples(), batch_size=4, seed=7, augmentation=config, workers=workers)
        for epoch in (0, 1):
            loader.sampler.set_epoch(epoch)
            yield from loader

    for one, other in zip(batches(0), batches(workers), strict=True):
        for name in one:
            assert torch.equal(one[name], other[name])


def test_a_sample_depends_on_seed_epoch_and_index_alone():
    config = AugmentationConfig(**ALWAYS)
    faces = AugmentedFaces(samples(), config, seed=3)
    first = faces[2, 5]["image"]
    faces[0, 1]
    assert torch.equal(first, AugmentedFaces(samples(), config, seed=3)[2, 5]["image"])
    for other in (AugmentedFaces(samples(), config, seed=4)[2, 5], faces[3, 5]):
        assert not torch.equal(first, other["image"])


def test_the_container_can_not_be_the_label():
    """The same pictures as PNG and as JPEG: chroma statistics tell the files apart, and not after the container."""
    pictures = [picture(seed, 64) for seed in range(60)]
    rng = np.random.default_rng(0)
    pictures = [(image + torch.from_numpy(rng.normal(0, 8, image.shape))).clamp(0, 255).byte() for image in pictures]

    def as_jpeg(image):
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=90)
        return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)

    def chroma_statistics(images):
        """Mean steps of both chroma channels between neighbors, by the place of the pair on the grid of two."""
        red, green, blue = images.double().unbind(1)
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        steps = [channel.diff(dim=2).abs() for channel in (red - luma, blue - luma)]
        return torch.stack([each[:, :, phase::2].mean(dim=(1, 2)) for each in steps for phase in (0, 1)], dim=1)

    def told_apart(change):
        """Accuracy of the best single statistic, between the two kinds, on pictures of each."""
        kinds = [torch.stack([change(image) for image in each]) for each in (pictures, map(as_jpeg, pictures))]
        first, second = map(chroma_statistics, kinds)
        middle = (first.median(0).values + second.median(0).values) / 2
        right = ((first > middle).double().mean(0) + (second <= middle).double().mean(0)) / 2
        return float(torch.maximum(right, 1 - right).max())

    seeds = itertools.count()
    assert told_apart(lambda image: image) > 0.95
    assert told_apart(lambda image: changed(next(seeds), image=image, container=True)[0]) < 0.75


def test_it_is_part_of_the_recipe():
    recipe = TrainingConfig().with_changes({"augmentation.compress": 0.5, "epochs": 3})
    assert recipe == TrainingConfig(epochs=3, augmentation=AugmentationConfig(compress=0.5))
    assert TrainingConfig.from_dict(recipe.to_dict()) == recipe
    assert recipe.with_changes({"augmentation": {"blur": 1}}).augmentation == AugmentationConfig(compress=0.5, blur=1)
    assert not TrainingConfig().augmentation.is_on


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("compress", 1.5, "compress: expected a finite number >= 0 and <= 1, got 1.5"),
        ("least_quality", 99, "least_quality: expected at most 98, got 99"),
        ("most_quality", 101, "most_quality: expected an integer >= 1 and <= 100, got 101"),
        ("least_scale", 0, "least_scale: expected a finite number > 0, got 0"),
        ("container", "yes", "container: expected true or false, got 'yes'"),
    ],
)
def test_rejects(field, value, message):
    with pytest.raises(ConfigError, match=message):
        AugmentationConfig(**{field: value})


def test_lived_turns_every_change_on():
    lived = dataclasses.asdict(AugmentationConfig.lived())
    assert all(0 < lived[name] < 1 for name in ALWAYS)
