from __future__ import annotations

import base64
import dataclasses
import itertools
import re
import sys
import warnings
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from bmrl import __version__
from bmrl.data.row import Row
from bmrl.errors import MissingExtraError
from bmrl.evaluation import Evaluation, Predictions, Skipped, render_report, summarize
from bmrl.evaluation.families import families_of_unseen
from bmrl.evaluation.measures import MEASURES
from bmrl.evaluation.outcomes import outcomes
from bmrl.evaluation.sources import within_sources
from bmrl.evaluation.yardsticks import in_words
from bmrl.generators import ARCHITECTURES, MANIPULATIONS, Generator
from bmrl.inference import Limits

HOSTILE = '<script>alert("x")</script>'
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that elements are closed in order; collects tags, attributes and the text of table rows and list items."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.rows, self.items, self.text = [], [], [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag == "li":
            self.items.append("")
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if "li" in self.open:
            self.items[-1] += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] = " ".join((self.rows[-1][-1] + " " + data).split())

    def row(self, first):
        (found,) = [row for row in self.rows if row[0] == first]
        return found


def make(names=("red", "photo"), num_unseen=4, num_seen=6, skipped=(), **changes):
    """An evaluation of random answers that name two classes (one real)."""
    classes = (
        Generator(name=names[0], manipulation="EFS", architecture="GAN"),
        Generator(name=names[1], manipulation="none", architecture="none"),
    )
    rows = [Row(f"s{i}", names[0], "EFS", "GAN", "seen", "test", f"s{i}") for i in range(num_seen)]
    rows += [Row(f"u{i}", "odd", "FS", "diffusion", "unseen", "test", f"u{i}") for i in range(num_unseen)]
    rng = torch.Generator().manual_seed(0)
    probabilities = torch.rand(len(rows), 2, generator=rng, dtype=torch.float64)
    probabilities = probabilities / probabilities.sum(dim=1, keepdim=True)
    embeddings = torch.randn(len(rows), 8, generator=rng)
    limits = Limits.of_threshold(0.7)
    predictions = Predictions(classes, tuple(rows), probabilities, embeddings, tuple(skipped), limits=limits)
    summary = summarize(predictions, [0.7, 0.9])
    fields = {name: getattr(summary, name) for name in ("seen", "unseen", "thresholds", "detection")}
    fields |= {
        "folder": Path("out"),
        "model": {"name": "m", "folder": None, "image_size": 32,
                  "generators": [{"name": c.name, "manipulation": c.manipulation, "architecture": c.architecture}
                                 for c in classes]},
        "data": {"root": "data", "split": "test", "num_images": len(rows), "num_skipped": len(skipped)},
        "created": "2026-01-01T00:00:00+00:00", "predictions": predictions,
        "limits": limits, "outcomes": outcomes(predictions, {"half": predictions}),
        "sources": within_sources(predictions, []), "families": families_of_unseen(predictions, None, []),
    }  # fmt: skip
    return Evaluation(**fields | changes)


def unreadable(name, reason="damaged"):
    """A skipped image; its path has no rules that a row would check."""
    return Skipped(Row(name, name, "EFS", "GAN", "seen", "test", name), reason)


def percent(value):
    return f"{100 * value:.1f}%"


def test_shows_every_family():
    made = make()
    (entry,) = made.unseen["per_generator"]
    families = list(itertools.product(MANIPULATIONS[1:], ARCHITECTURES[1:]))
    entries = [entry | {"generator": f"{m} {a}", "manipulation": m, "architecture": a} for m, a in families]
    page = Page(render_report(dataclasses.replace(made, unseen=made.unseen | {"per_generator": [entry, *entries]})))
    words = {
        "EFS": "entire face synthesis",
        "FS": "face swap",
        "AM": "attribute manipulation",
        "FR": "face reenactment",
    }
    assert set(words) == {manipulation for manipulation, _ in families}
    for manipulation, architecture in families:
        shown = "unknown architecture" if architecture == "unknown" else architecture
        assert page.row(f"{manipulation} {architecture}")[1] == f"{words[manipulation]}, {shown}"


def test_shows_the_metrics():
    made = make()
    page = Page(render_report(made))
    assert page.row("Seen accuracy ↑")[1] == percent(made.seen["accuracy"])
    assert page.row("OSCR ↑")[1] == percent(made.unseen["oscr"])
    assert page.row("FPR at 95% TPR ↓")[1] == percent(made.unseen["fpr95"])
    assert page.row("Seen accepted at 0.7 ↑")[1] == percent(made.thresholds[0]["seen_acceptance"])
    assert page.row("Unseen rejected at 0.9 ↑")[1] == percent(made.thresholds[1]["unseen_rejection"])
    red = made.seen["per_generator"][0]
    low, high = red["recall_interval"]
    interval = f"{percent(low)} – {percent(high)}"
    cells = [
        "red",
        "entire face synthesis, GAN",
        "6",
        str(red["num_correct"]),
        f"{percent(red['recall'])} {interval}",
        "",
    ]
    assert cells in page.rows
    assert ["photo", "photograph", "0", "0", "-", "no test image"] in page.rows
    assert ["1", "red", *map(str, made.seen["confusion"][0])] in page.rows
    assert ["", "odd", *map(str, made.unseen["per_generator"][0]["named"])] in page.rows
    assert page.row("All images")[1:3] == ["0", "10"]
    assert "Color and spectrum alone" not in page.rows[0]
    assert page.items == ["seen", "●red", "●photo", "unseen", "△odd"]
    assert f"bmrl {__version__}" in page.text


def test_rejection_stands_below_the_acceptance_at_the_same_threshold():
    made = make()
    page = Page(render_report(made))
    (header,) = [row for row in page.rows if row[3:] == ["AUROC", "rejected at 0.7", "rejected at 0.9"]]
    odd = next(row for row in page.rows if row[:3] == ["odd", "face swap, diffusion", "4"])
    entry = made.unseen["per_generator"][0]
    assert odd[3] == percent(entry["auroc"])
    for place, values in enumerate(made.thresholds):
        accepted = page.row("Seen images accepted")
        assert accepted[1] == "6"
        assert accepted[3 + place].startswith(percent(values["seen_acceptance"]) + " ")
        low, high = entry["rejection_interval"][place]
        assert odd[4 + place] == f"{percent(entry['rejection'][place])} {percent(low)} – {percent(high)}"
        assert page.row("All unseen images")[3 + place].startswith(percent(values["unseen_rejection"]) + " ")
        assert page.row("Mean over unseen generators")[2 + place] == percent(values["unseen_rejection_mean"])
    assert page.rows.index(header) < page.rows.index(accepted) < page.rows.index(odd)


def test_baselines_stand_next_to_the_model():
    other = make(num_seen=9, num_unseen=2)
    older = dataclasses.replace(other, thresholds=other.thresholds[:1])
    made = make(
        yardsticks={"color_spectrum": other},
        yardsticks_left_out={"backbone": "no timm"},
        baselines={"CViT & co": older},
    )
    page = Page(render_report(made))
    assert page.rows[0][1:] == ["This model", "Color and spectrum alone", "CViT & co"]
    assert page.row("OSCR ↑")[1:] == [percent(one.unseen["oscr"]) for one in (made, other, older)]
    assert page.row("Unseen rejected at 0.9 ↑")[3] == "-"
    for entry, sentence in zip(made.best_yardsticks, in_words(made.best_yardsticks), strict=True):
        assert f"{sentence}." in page.text
        assert ("not better" in sentence) == (made.metrics[entry["metric"]] <= other.metrics[entry["metric"]])
    assert "The yardstick Frozen ImageNet network is not shown: no timm." in page.text


def test_a_metric_is_explained_once():
    text = Page(render_report(make())).text
    for entry in MEASURES:
        assert text.count(entry.explanation) == 1, entry.name


def test_is_one_file_without_scripts_or_links():
    text = render_report(make())
    page = Page(text)
    assert not {"script", "link", "iframe", "a", "object"} & set(page.tags)
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text
    sources = [value for name, value in page.attributes if name == "src"]
    assert len(sources) == 4
    for source in sources:
        head, _, data = source.partition(",")
        assert head == "data:image/png;base64"
        assert Image.open(BytesIO(base64.b64decode(data))).format == "PNG"


@pytest.mark.parametrize(
    "name", [HOSTILE, "a$b$c", r"$\frac$", "顔 生成器", "'\"><img src=x onerror=1>", "a&amp;b", "{{ 7 * 7 }}"]
)
def test_any_name_is_shown_as_it_is(name):
    plain = make(names=(name, "photo"), skipped=[unreadable(name, name)])
    made = dataclasses.replace(
        plain,
        model={**plain.model, "name": name},
        data={**plain.data, "root": name},
        yardsticks_left_out={"backbone": name},
        baselines={name: make()},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of characters that its font lacks
        text = render_report(made)
    page = Page(text)
    assert "script" not in page.tags
    assert page.tags.count("img") == 4
    assert page.text.count(name) >= 6  # title, heading, root, reason, legend ...
    assert [name, name, name] in page.rows
    assert page.rows[0][-1] == name
    assert not [attribute for attribute, _ in page.attributes if attribute.startswith("on")]


def test_says_what_is_missing():
    page = Page(render_report(make(num_unseen=0, num_seen=4)))
    text = " ".join(page.text.split())
    assert "at least 5 images, there are 4" in text
    assert "The test split holds no image of an unseen generator." in text
    assert "nothing is known about how the model treats one" in text
    assert "every image of the split was read" in text
    assert "No yardstick was asked for: " in text
    assert page.row("AUROC seen/unseen ↑")[1] == "-"


def test_without_detection():
    made = make(detection={"seen": None, "all": None, "reason": "generators: ..."})
    assert "Not available: it needs real and generated classes" in Page(render_report(made)).text


def test_long_list_of_skipped_images_is_cut():
    page = Page(render_report(make(skipped=[unreadable(f"bad{i}.png") for i in range(150)])))
    assert sum(row[0].startswith("bad") for row in page.rows) == 100
    assert "150 of 160 images could not be read" in " ".join(page.text.split())
    assert "The first 100 are listed" in page.text


def test_many_images_are_thinned_on_the_map():
    page = Page(render_report(make(num_seen=1600, num_unseen=10)))
    assert re.search(r"\(805 of\s+1610 are drawn\)", page.text)


def test_needs_jinja(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"Jinja2: not installed.*\[train\]"):
        render_report(make())
