"""Claims about the speed and the memory of the losses."""

from __future__ import annotations

from tests.docs.claims.claim import Claim, ratio
from tests.docs.results import loss, spread


def mib(value):
    return "< 0.1" if value < 0.05 else f"{value:.1f}"


LOSSES = [  # of the table: the loss, its batch, its provider, whether the plain form's memory stands there too
    ("dfacc", 32, "bmrl", True),
    ("dfacc", 1024, "bmrl", True),
    ("dfacc", 4096, "bmrl", True),
    ("dfacc", 4096, "cdist by matrix product", False),
    ("dfacc", 4096, "pytorch-metric-learning ContrastiveLoss", False),
    ("contrastive", 32, "bmrl", True),
    ("contrastive", 32, "bmrl compiled", None),
    ("contrastive", 32, "open_clip ClipLoss", False),
    ("contrastive", 32, "pytorch-metric-learning NTXentLoss", False),
    ("contrastive", 1024, "bmrl", True),
    ("contrastive", 8192, "bmrl", True),
    ("contrastive", 8192, "open_clip ClipLoss", False),
]
PAIRS = "pytorch-metric-learning ContrastiveLoss"
SHOWN = {
    "cdist by matrix product": "`cdist` by matrix product",
    PAIRS: f"{PAIRS} (another loss of the same pairs)",
}
PLAIN = {"dfacc": "cdist", "contrastive": "cross-entropy"}


def losses():
    page = "benchmarks/README.md"
    for name, batch, provider, plain in LOSSES:
        row = loss(name, provider, batch)
        memory = "" if plain is None else f"{mib(row['added_mib'])} "
        if plain:
            memory += f"({mib(loss(name, PLAIN[name], batch)['added_mib'])}) "
        shown = SHOWN.get(provider, provider)
        yield Claim(page, f"| {batch} | {shown} | {ratio(*spread(row['speedup_over_plain']))} | {memory}|")
    faster = [
        loss("dfacc", "bmrl", batch)["median_s"] / loss("dfacc", "cdist by matrix product", batch)["median_s"]
        for batch in (4096, 1024)
    ]
    yield Claim(page, "are {:.1f} times as fast as ours at 4,096 rows, and {:.1f} times at 1,024".format(*faster))
    slower = loss("contrastive", "bmrl", 32)["median_s"] / loss("contrastive", PLAIN["contrastive"], 32)["median_s"] - 1
    yield Claim(page, f"contrastive loss of 32 rows takes {100 * slower:.0f} % longer than the plain form")
    large = loss("dfacc", "bmrl", 4096)
    yield Claim(
        "README.md",
        "the DFACC loss of 4,096 rows is {} times as fast as `torch.cdist` of the same exact distances, in {:.0f} MiB "
        "instead of {:.0f}".format(
            ratio(*spread(large["speedup_over_plain"]), "{:.1f}".format),
            large["added_mib"],
            loss("dfacc", PLAIN["dfacc"], 4096)["added_mib"],
        ),
    )
