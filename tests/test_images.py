from __future__ import annotations

import io
import os
import re
import socket
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bmrl.errors import DTypeError, ImageError, MissingFileError, RangeError
from bmrl.images import center_square, load_image, read_image, resize_image

MODES = (
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "I;16",
    "I;16B",
)

ROOT = Path(__file__).parents[1]


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


# ---------------------------------------------------------------------------------------------- modes


@given(st.sampled_from(MODES), st.integers(1, 40), st.integers(1, 40), st.integers(1, 24))
def test_any_mode_and_size_gives_uint8_rgb(mode, width, height, image_size):
    image = read_image(Image.new(mode, (width, height)), image_size)
    assert image.shape == (3, image_size, image_size)
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    assert (image == image[:, :1, :1]).all()  # one color in, one color out


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBX", (1, 2, 3, 0), (1, 2, 3)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("I;16", 257 * 200, (200, 200, 200)),
        ("I;16B", 257 * 200, (200, 200, 200)),
        ("I", 65535, (255, 255, 255)),
        ("LA", (40, 255), (40, 40, 40)),
        ("LA", (40, 0), (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 100, 255, 51), (204, 224, 255)),  # white * 0.8 + color * 0.2
        ("RGBa", (0, 20, 51, 51), (204, 224, 255)),  # the same with premultiplied color
        ("La", (20, 51), (224, 224, 224)),
    ],
)
def test_color_of_each_mode(mode, color, expected):
    assert load_image(Image.new(mode, (2, 2), color)).getpixel((1, 1)) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_entry_is_white(kind):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    loaded = load_image(encode(image, kind, transparency=0))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (40, 50, 60)]


@pytest.mark.parametrize(("mode", "color"), [("L", 7), ("RGB", (7, 8, 9))])
def test_transparent_color_is_white(mode, color):
    image = Image.new(mode, (2, 1), color)
    image.putpixel((1, 0), 0 if mode == "L" else (0, 0, 0))
    loaded = load_image(encode(image, "PNG", transparency=color))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_scaled_not_clipped(kind):
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    loaded = pixels(load_image(encode(Image.fromarray(levels), kind)))
    expected = np.floor(levels.astype(np.float64) / 257 + 0.5)
    assert (loaded == expected[..., None]).all()


def test_sixteen_bit_color_is_scaled_not_clipped():
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = b"\0" + struct.pack(">3H", 65535, 257 * 128, 0)
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    assert load_image(data).getpixel((0, 0)) == (255, 128, 0)


@pytest.mark.parametrize("level", [-1, 65536])
def test_rejects_integers_beyond_sixteen_bits(level):
    message = rf"PIL image: expected a whole, valid image, got: gray levels from {level} to {level}, beyond 16 bits"
    with pytest.raises(ImageError, match=message):
        load_image(Image.new("I", (2, 2), level))


def test_rejects_floats():
    with pytest.raises(ImageError, match="got: floating-point gray levels, whose range is unknown"):
        load_image(Image.new("F", (2, 2), 0.5))


def test_cmyk_jpeg_with_adobe_inversion():
    data = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)  # red
    assert b"Adobe" in data
    assert load_image(data).getpixel((8, 8)) == pytest.approx((255, 0, 0), abs=3)


# ---------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_keep_every_pixel(kind, options):
    array = noise(31, 17)
    assert (pixels(load_image(encode(Image.fromarray(array), kind, **options))) == array).all()


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff(compression):
    array = noise(31, 17)
    assert (pixels(load_image(encode(Image.fromarray(array), "TIFF", compression=compression))) == array).all()


def test_jpeg_is_close():
    gradient = np.stack([np.add.outer(np.arange(32) * 4, np.arange(32) * 3)] * 3, -1).astype(np.uint8)
    loaded = pixels(load_image(encode(Image.fromarray(gradient), "JPEG", quality=95))).astype(int)
    assert np.abs(loaded - gradient).max() <= 6


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG", "MPO"])
def test_first_frame_of_several(kind):
    red, blue = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    data = encode(red, kind, save_all=True, append_images=[blue])
    assert load_image(data).getpixel((8, 8)) == pytest.approx((255, 0, 0), abs=3)


@pytest.mark.parametrize("kind", ["PPM", "ICO", "TGA", "PCX", "JPEG2000", "EPS"])
def test_other_formats_are_refused(kind):
    data = encode(Image.new("RGB", (16, 16)), kind)
    with pytest.raises(
        ImageError, match=r"bytes image: expected an image \(JPEG, PNG, WebP, BMP, TIFF, GIF\), got (other|JPEG 2000)"
    ):
        load_image(data)


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "AVIF"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "a video"),
        (b"RIFF\x10\0\0\0AVI LIST", "a video"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b"<!DOCTYPE html><html>404", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS, whose file was not fetched"),
    ],
)
def test_pictures_of_other_formats_are_called_by_their_name(start, what):
    with pytest.raises(ImageError, match=rf"^a: expected an image \(JPEG, .*\), got {what}$"):
        load_image(start + bytes(40), name="a")


UPRIGHT = {  # what the EXIF standard says of the stored rows and columns
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_applied(kind, orientation):
    array = noise(5, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(array), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    expected = UPRIGHT[orientation](array)
    assert np.array_equal(pixels(load_image(data)), expected)
    assert np.array_equal(pixels(load_image(Image.open(io.BytesIO(data)))), expected)


def test_too_little_memory_for_the_orientation_is_no_upright_image(monkeypatch):
    def getexif(image):
        raise MemoryError

    data = encode(Image.new("RGB", (20, 10)), "PNG")
    monkeypatch.setattr(Image.Image, "getexif", getexif)
    with pytest.raises((MemoryError, ImageError)):
        load_image(data)


@pytest.mark.parametrize("orientation", [1, 6])
def test_orientation_of_jpeg(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.new("RGB", (20, 10)), "JPEG", exif=exif)
    assert load_image(data).size == ((20, 10) if orientation == 1 else (10, 20))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_damaged_exif_says_nothing(exif):
    assert load_image(encode(Image.new("RGB", (20, 10)), "JPEG", exif=exif)).size == (20, 10)


# ---------------------------------------------------------------------------------------------- sources


def test_sources_agree(tmp_path):
    array = noise(9, 7)
    path = tmp_path / "image.png"
    Image.fromarray(array).save(path)
    data = path.read_bytes()
    with path.open("rb") as file, Image.open(path) as image:
        sources = [path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), file, image]
        for source in sources:
            assert np.array_equal(pixels(load_image(source)), array), type(source)


def test_a_pil_image_is_left_unchanged():
    image = Image.new("RGB", (4, 2), "red")
    load_image(image).putpixel((0, 0), (0, 0, 255))
    assert image.getpixel((0, 0)) == (255, 0, 0)


def test_name_in_errors(tmp_path):
    path = tmp_path / "face.jpg"
    path.write_text("hello world")
    message = "expected an image (JPEG, PNG, WebP, BMP, TIFF, GIF), got other data that starts with b'hello wo'"
    for source, name, called in (
        (path, None, str(path)),
        (str(path), "images[3]", "images[3]"),
        (path.read_bytes(), None, "bytes image"),
        (io.BytesIO(path.read_bytes()), None, "file image"),
        (path.open("rb"), None, str(path)),
    ):
        with pytest.raises(ImageError) as caught:
            load_image(source, name=name)
        assert str(caught.value) == f"{called}: {message}"


def test_errors_are_one_line(tmp_path):
    path = tmp_path / "two\nlines.jpg"
    path.write_bytes(b"\n\n")
    with pytest.raises(ImageError) as caught:
        load_image(path)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    for path in (tmp_path / "none.jpg", tmp_path / "file" / "none.jpg"):
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(MissingFileError, match=r"none\.jpg: expected an image file, got nothing at this path"):
            load_image(path)


def test_unreadable_sources(tmp_path):
    loop = tmp_path / "loop.jpg"
    loop.symlink_to(loop)
    closed = io.BytesIO(b"x")
    closed.close()
    for source, message in (
        (tmp_path, "expected an image file, got a folder"),
        (loop, "loop.jpg: expected a readable image file, got: Too many levels of symbolic links"),
        ("a\0b", "expected a readable image file, got: embedded null byte"),
        (closed, "file image: expected a readable image file, got: I/O operation on closed file."),
        (io.StringIO("text"), "file image: expected a file opened in binary mode, got str"),
        (b"", "bytes image: expected an image, got no bytes"),
        (Image.new("RGB", (0, 3)), "PIL image: expected at least 1 x 1 pixels, got 0 x 3"),
    ):
        with pytest.raises(ImageError) as caught:
            load_image(source)
        assert message in str(caught.value)


def test_rejects_other_types():
    with pytest.raises(DTypeError, match="source: expected a path, bytes, a binary file or a PIL image, got ndarray"):
        load_image(noise(2, 2))
    with pytest.raises(RangeError, match="max_pixels: expected an integer >= 1, got 0"):
        load_image(b"", max_pixels=0)
    with pytest.raises(RangeError, match="max_bytes: expected an integer >= 1, got -1"):
        load_image(b"", max_bytes=-1)


# ---------------------------------------------------------------------------------------------- hostile files


@pytest.mark.filterwarnings("ignore:Truncated File Read:UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_every_truncation_is_an_error(kind):
    data = encode(Image.fromarray(noise(24, 24)), kind)
    for length in range(1, len(data) - len(data) // 8, len(data) // 40):
        with pytest.raises(ImageError, match="bytes image: expected "):
            load_image(data[:length])


def test_text_of_truncation():
    data = encode(Image.fromarray(noise(24, 24)), "JPEG")
    with pytest.raises(ImageError, match=r"^a\.jpg: expected a whole, valid image, got: image file is truncated"):
        load_image(data[:-200], name="a.jpg")
    with pytest.raises(ImageError, match=r"^a\.jpg: expected a valid JPEG image, got: Truncated File Read$"):
        load_image(data[:300], name="a.jpg")


@given(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"]), st.data())
def test_damaged_bytes_are_an_image_or_an_image_error(kind, data):
    damaged = bytearray(encode(Image.fromarray(noise(8, 8)), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on damaged metadata
        try:
            image = load_image(bytes(damaged), max_pixels=10_000)
        except ImageError as error:
            image, text = None, str(error)
        else:
            text = ""
    assert image.mode == "RGB" if image else re.fullmatch("bytes image: expected .+, got:? .+", text)


def bombs() -> dict[str, bytes]:
    """Headers that promise 10,000,000,000 pixels (fewer where the format ends earlier), and nothing behind them."""
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))
    png += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    webp = bytearray(encode(Image.new("RGB", (16, 16)), "WEBP"))
    place = webp.index(b"\x9d\x01\x2a") + 3
    webp[place : place + 4] = struct.pack("<HH", 16383, 16383)
    jpeg = bytearray(encode(Image.new("RGB", (16, 16)), "JPEG"))
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", 65500, 65500)
    tags = [(256, 4, 1, 100_000), (257, 4, 1, 100_000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    return {
        "PNG": png,
        "WebP": bytes(webp),
        "GIF": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0,\0\0\0\0\1\0\1\0\0\2\1\0\0;",
        "BMP": b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 100_000, 100_000, 1, 24, *[0] * 6),
        "TIFF": b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        + bytes(4),
        "JPEG": bytes(jpeg),
    }


@pytest.mark.parametrize("kind", bombs())
def test_bomb_is_refused_from_its_header_without_a_warning(kind):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(
            ImageError, match=r"bytes image: expected .*(at most 89478485 pixels, got \d+ x|exceeds limit)"
        ):
            load_image(bombs()[kind])
    assert caught == []


def test_limits_are_inclusive():
    data = encode(Image.new("RGB", (20, 10)), "PNG")
    assert load_image(data, max_pixels=200, max_bytes=len(data)).size == (20, 10)
    with pytest.raises(ImageError, match=r"^bytes image: expected at most 199 pixels, got 20 x 10$"):
        load_image(data, max_pixels=199)
    for source in (data, io.BytesIO(data)):
        with pytest.raises(ImageError, match=f"image: expected at most {len(data) - 1} bytes, got more$"):
            load_image(source, max_bytes=len(data) - 1)


def test_an_endless_file_is_refused():
    with open("/dev/zero", "rb") as file, pytest.raises(ImageError, match=r"^/dev/zero: expected at most 1000 bytes"):
        load_image(file, max_bytes=1000)
    with pytest.raises(ImageError, match=r"^/dev/zero: expected a readable image file, got: a device$"):
        load_image("/dev/zero", max_bytes=1000)


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    if kind == "pipe":
        os.mkfifo("x.png")
    elif kind == "folder":
        os.mkdir("x.png")
    with socket.socket(socket.AF_UNIX) as server:
        if kind == "socket":
            server.bind("x.png")
        with pytest.raises(ImageError) as caught:
            load_image("x.png")
    assert (
        str(caught.value)
        == {
            "pipe": "x.png: expected a readable image file, got: a named pipe",
            "socket": "x.png: expected a readable image file, got: a socket",
            "folder": "x.png: expected an image file, got a folder",
        }[kind]
    )


@pytest.mark.parametrize("path", ["a" * 300, "a\0.png", "a\ud800.png", b"\xff.png".decode(errors="surrogateescape")])
def test_names_that_no_file_can_have(path):
    with pytest.raises((ImageError, MissingFileError)) as caught:
        load_image(path)
    assert str(caught.value).isprintable()


def test_names_can_not_write_on_a_terminal(tmp_path):
    path = tmp_path / "\x1b[31mred\r\nfine.png"
    path.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"\\x1b\[31mred\\r\\nfine\.png: expected an image") as caught:
        load_image(path)
    assert str(caught.value).isprintable()


def test_a_file_that_fails_while_it_is_read():
    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise EOFError("Compressed file ended before the end-of-stream marker was reached")

    with pytest.raises(ImageError, match=r"^a: expected a readable image file, got: Compressed file ended before"):
        load_image(Broken(), name="a")


def test_tiles_larger_than_the_limit_are_refused():
    """A decoder makes room for a whole tile, however small the image is."""
    tags = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    tags += [(322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 8), (325, 4, 1, 8)]
    tiled = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags))
    tiled += b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    with pytest.raises(ImageError, match=r"^bytes image: expected tiles of at most 89478485 pixels, got 3600000000$"):
        load_image(tiled)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "I", "I;16"])
def test_large_images_are_converted_in_tiles_to_the_same_pixels(monkeypatch, mode):
    array = np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8)
    rgba = Image.merge("RGBA", [Image.fromarray(np.roll(array, shift)) for shift in range(4)])
    if mode in ("I", "I;16"):
        image = Image.fromarray(array.astype(np.uint16) * 257 - array).convert(mode)
    elif mode in ("LA", "La", "PA", "RGBa"):
        image = rgba.convert("LA").convert(mode) if mode != "RGBa" else rgba.convert(mode)
    else:
        image = rgba.convert("RGB").convert(mode) if mode != "RGBA" else rgba
    if mode in ("L", "P", "RGB"):
        image.info["transparency"] = (7, 8, 9) if mode == "RGB" else 7
    whole = pixels(load_image(image))
    for size in (1, 10, 53, 200):
        monkeypatch.setattr("bmrl._decoding._TILE", size)
        assert np.array_equal(pixels(load_image(image)), whole)


def test_many_large_images_at_once_stay_within_the_promised_memory(tmp_path):
    """Images of the largest size in threads of their own; the child measures itself."""
    for mode, name in (("RGBA", "a.png"), ("LA", "b.png"), ("P", "c.png")):
        options = {"transparency": 0} if mode == "P" else {}
        Image.new(mode, (9459, 9459)).save(tmp_path / name, compress_level=1, **options)
    script = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from bmrl.images import read_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ThreadPoolExecutor(4) as pool:
    images = list(pool.map(lambda path: read_image(path, 64), sys.argv[1:]))
assert [tuple(image.shape) for image in images] == [(3, 64, 64)] * 4
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    paths = [str(tmp_path / name) for name in ("a.png", "b.png", "c.png", "a.png")]
    result = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 1.75 * 2**20  # kilobytes


def test_odd_metadata_are_no_ones_business():
    """Pillow warns of each, without a name; a reader of a thousand files can do nothing with that."""
    script = """
import io
from PIL import Image
from bmrl.images import load_image
file = io.BytesIO()
Image.new("L", (8, 8)).save(file, "TIFF", compression="tiff_adobe_deflate")
data = bytearray(file.getvalue())
for place in range(8, len(data)):
    for value in (0, 2, 255):
        try:
            load_image(bytes(data[:place]) + bytes([value]) + bytes(data[place + 1:]))
        except ValueError:
            pass
"""
    result = subprocess.run([sys.executable, "-W", "always", "-c", script], capture_output=True, text=True, check=True)
    assert result.stderr == ""


def test_globals_are_left_alone():
    filters, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    load_image(encode(Image.new("RGB", (20, 10)), "PNG"), max_pixels=10**12)
    with pytest.raises(ImageError):
        load_image(bombs()["PNG"], max_pixels=10**12)
    assert warnings.filters == filters
    assert limit == Image.MAX_IMAGE_PIXELS


def test_threads_agree():
    arrays = [noise(64, 48, seed) for seed in range(40)]
    data = [encode(Image.fromarray(array), ("PNG", "BMP", "TIFF")[index % 3]) for index, array in enumerate(arrays)]
    with ThreadPoolExecutor(8) as pool:
        for array, image in zip(arrays, pool.map(load_image, data), strict=True):
            assert (pixels(image) == array).all()


# ---------------------------------------------------------------------------------------------- resizing


def bicubic(array: np.ndarray, size: int) -> np.ndarray:
    """Antialiased bicubic (a = -0.5) of a square array (side, side, 3), row by row, in float64."""
    side = array.shape[0]
    scale = max(side / size, 1.0)
    matrix = np.zeros((size, side))
    for row in range(size):
        center = (row + 0.5) * side / size
        for column in range(side):
            x = abs(column + 0.5 - center) / scale
            if x < 1:
                matrix[row, column] = 1.5 * x**3 - 2.5 * x**2 + 1
            elif x < 2:
                matrix[row, column] = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    matrix /= matrix.sum(1, keepdims=True)
    return np.einsum("ij,jkc,lk->ilc", matrix, array.astype(np.float64), matrix).clip(0, 255)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.integers(0, 3))
def test_resize_is_antialiased_bicubic_of_the_center_square(width, height, image_size, seed):
    array = 64 + noise(width, height, seed) // 2  # no overshoot, which Pillow clips between its two passes
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    expected = bicubic(array[top : top + side, left : left + side], image_size)
    resized = resize_image(Image.fromarray(array), image_size).permute(1, 2, 0).numpy()
    assert np.abs(resized - expected).max() <= 1.2  # both passes round by 0.5; the second weighs by up to 1.25


@given(st.integers(1, 20), st.integers(0, 9), st.booleans(), st.integers(0, 3))
def test_the_very_size_is_only_cropped(side, extra, wide, seed):
    width, height = (side + extra, side) if wide else (side, side + extra)
    array = noise(width, height, seed)
    corner = extra // 2
    expected = array[:, corner : corner + side] if wide else array[corner : corner + side]
    resized = resize_image(Image.fromarray(array), side)
    assert np.array_equal(resized.permute(1, 2, 0).numpy(), expected)


def test_long_images_and_single_pixels():
    assert read_image(Image.new("RGB", (20_000, 1), "red"), 8)[:, 0, 0].tolist() == [255, 0, 0]
    assert read_image(Image.new("RGB", (1, 1), "red"), 224)[:, 223, 0].tolist() == [255, 0, 0]


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_center_square(width, height):
    left, top, right, bottom = center_square(width, height)
    assert right - left == bottom - top == min(width, height)
    assert 0 <= (width - right) - left <= 1
    assert 0 <= (height - bottom) - top <= 1


def test_resize_rejects_other_images():
    with pytest.raises(DTypeError, match="image: expected a PIL image in mode RGB, got mode L"):
        resize_image(Image.new("L", (2, 2)), 2)
    with pytest.raises(DTypeError, match="image: expected a PIL image in mode RGB, got ndarray"):
        resize_image(noise(2, 2), 2)
    with pytest.raises(RangeError, match="image_size: expected an integer >= 1 and <= 16384, got 0"):
        resize_image(Image.new("RGB", (2, 2)), 0)


def test_the_result_is_not_tied_to_the_image():
    image = Image.new("RGB", (3, 3), "red")
    tensor = resize_image(image, 3)
    tensor.zero_()
    assert image.getpixel((0, 0)) == (255, 0, 0)


def test_needs_pillow_and_torch_alone():
    code = "import sys, bmrl.images; print({'torchvision', 'lightning', 'open_clip', 'cv2'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout == "set()\n"
