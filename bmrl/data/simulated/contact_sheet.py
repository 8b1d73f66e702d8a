"""A picture that shows the data set at a glance: one row per generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bmrl.data.simulated.folder import CONTACT_SHEET, save_image
from bmrl.parsing import PARSING_COLORS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bmrl.data.manifest import Manifest
    from bmrl.data.simulated.simulators import Simulator

__all__ = ["residual_spectrum", "write_contact_sheet"]

_FACES = 8
_LABEL_WIDTH = 250
_MARGIN = 6
_SMALLEST = 96  # pixels of a picture, which a label of three lines needs


def write_contact_sheet(manifest: Manifest, simulators: Sequence[Simulator]) -> Path:
    """Write ``contact_sheet.png``: for each simulator its label, test faces, a parsing map and its mean spectrum.

    The spectrum is that of the high-pass residual (log scale, zero frequency in the middle): the trace by which the
    generator can be recognized, which the faces do not show.
    """
    palette = np.array(PARSING_COLORS, dtype=np.uint8)
    font, small = ImageFont.load_default(16), ImageFont.load_default(12)
    rows = {s.name: [row for row in manifest.select(split="test") if row.generator == s.name] for s in simulators}
    width = Image.open(manifest.image_path(manifest.rows[0])).width
    size = width * -(-_SMALLEST // width)
    step = size + _MARGIN
    sheet = Image.new("RGB", (_LABEL_WIDTH + (_FACES + 2) * step + _MARGIN, len(simulators) * step + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for index, simulator in enumerate(simulators):
        top = _MARGIN + index * step
        kind = (
            "photograph" if simulator.manipulation == "none" else f"{simulator.manipulation}, {simulator.architecture}"
        )
        color = "#1a7f37" if simulator.role == "seen" else "#b3261e"
        draw.text((10, top + 8), simulator.name, "black", font)
        draw.text((10, top + 32), f"{simulator.role}: {kind}", color, small)
        draw.multiline_text((10, top + 52), _wrap(simulator.description, small), "#555555", small)
        pictures = [Image.open(manifest.image_path(row)) for row in rows[simulator.name][:_FACES]]
        for column, picture in enumerate(pictures):
            sheet.paste(_enlarged(picture, size), (_LABEL_WIDTH + column * step, top))
        parsing = np.asarray(Image.open(manifest.parsing_path(rows[simulator.name][0])))
        sheet.paste(
            _enlarged(Image.fromarray(palette[parsing]), size),
            (_LABEL_WIDTH + _FACES * step, top),
        )
        spectrum = np.mean([residual_spectrum(np.asarray(picture)) for picture in pictures], axis=0)
        low, high = np.percentile(spectrum, (1, 99.9))
        shade = np.clip((spectrum - low) / (high - low) * 255, 0, 255).astype(np.uint8)
        spectrum_picture = Image.fromarray(shade).convert("RGB")
        sheet.paste(_enlarged(spectrum_picture, size), (_LABEL_WIDTH + (_FACES + 1) * step, top))
    path = manifest.root / CONTACT_SHEET
    save_image(sheet, path)
    return path


def _enlarged(picture: Image.Image, size: int) -> Image.Image:
    """Show each pixel as a square, so that traces stay what they are."""
    return picture.resize((size, size), Image.Resampling.NEAREST)


def residual_spectrum(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Log power ``(size, size)`` of an image ``(size, size, 3)`` uint8 less the mean of each pixel's neighbors."""
    gray = image.astype(np.float64).mean(2) / 255
    padded = np.pad(gray, 1, mode="reflect")
    residual = gray - (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
    window = np.hanning(gray.shape[0] + 2)[1:-1]
    return np.log(np.abs(np.fft.fftshift(np.fft.fft2(residual * np.outer(window, window)))) ** 2 + 1e-4)


def _wrap(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Break ``text`` into lines that fit the label's column."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > _LABEL_WIDTH - 20:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
