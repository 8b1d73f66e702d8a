"""Pictures of a benchmark session: images per second and bytes per second against the batch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

__all__ = ["draw"]


def draw(file: Path) -> list[Path]:
    """Draw one PNG per operator next to the JSON file of a session."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator

    content = json.loads(file.read_text(encoding="utf-8"))
    pictures = []
    rows = content["measurements"]
    for operator in dict.fromkeys(row["operator"] for row in rows):
        figure, (speed, traffic) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
        mine = [row for row in rows if row["operator"] == operator]
        for provider in dict.fromkeys(row["provider"] for row in mine):
            points = [row for row in mine if row["provider"] == provider]
            batches = [row["batch"] for row in points]
            style = {"marker": "o", "markersize": 4, "linewidth": 2.2 if provider.startswith("bmrl") else 1.1}
            (line,) = speed.plot(batches, [row["images_per_s"] for row in points], label=provider, **style)
            speed.fill_between(
                batches,
                [row["batch"] / row["high_s"] for row in points],
                [row["batch"] / row["low_s"] for row in points],
                color=line.get_color(),
                alpha=0.15,
            )
            traffic.plot(batches, [row["gb_per_s"] for row in points], color=line.get_color(), **style)
        roof = content["copy_bandwidth_gb_per_s"]
        traffic.axhline(roof, color="black", linestyle="--", linewidth=1)
        traffic.annotate(f"copy: {roof:.0f} GB/s", (0.02, roof), xycoords=("axes fraction", "data"), va="bottom")
        for axes, label in ((speed, "images / s"), (traffic, "GB / s of necessary traffic")):
            axes.set(xscale="log", yscale="log", xlabel="batch", ylabel=label)
            axes.set_xticks(sorted({row["batch"] for row in mine}))
            axes.xaxis.set_major_formatter("{x:.0f}")
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
            axes.grid(alpha=0.3)
        traffic.set_ylim(top=2 * roof)
        figure.legend(loc="outside right", fontsize=8)
        environment = content["environment"]
        figure.suptitle(
            f"{operator} from uint8, {environment['device']}, {environment['threads']} threads, median and quartiles"
        )
        pictures.append(file.with_name(f"{file.stem}_{operator}.png"))
        figure.savefig(pictures[-1], dpi=110)
        plt.close(figure)
    return pictures


if __name__ == "__main__":
    for picture in draw(Path(sys.argv[1])):
        print(picture)
