from __future__ import annotations

import base64
import itertools
import re
import sys
import warnings
from html.parser import HTMLParser
from io import BytesIO

import pytest
import torch
from PIL import Image

from bmrl.data.row import Row
from bmrl.errors import MissingExtraError
from bmrl.evaluation.predictions import Predictions
from bmrl.evaluation.report import render_report
from bmrl.evaluation.summary import summarize
from bmrl.generators import ARCHITECTURES, MANIPULATIONS, Generator

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


def make(names=("red", "photo"), num_unseen=4, num_seen=6, skipped=()):
    """A set of predictions that names two classes (one real), with its figures."""
    classes = (
        Generator(name=names[0], manipulation="EFS", architecture="GAN"),
        Generator(name=names[1], manipulation="none", architecture="none"),
    )
    rows = [Row(f"s{i}", names[0], "EFS", "GAN", "seen", "test", f"s{i}") for i in range(num_seen)]
    rows += [Row(f"u{i}", "odd", "FS", "diffusion", "unseen", "test", f"u{i}") for i in range(num_unseen)]
    rng = torch.Generator().manual_seed(0)
    probabilities = torch.rand(len(rows), 2, generator=rng, dtype=torch.float64)
    probabilities = probabilities / probabilities.sum(dim=1, keepdim=True)
    predictions = Predictions(classes, tuple(rows), probabilities, torch.randn(len(rows), 8, generator=rng))
    metrics = {
        "bmrl_version": "1.2.3", "created": "2026-01-01T00:00:00+00:00",
        "model": {"name": "m", "folder": None, "image_size": 32,
                  "generators": [{"name": c.name, "manipulation": c.manipulation, "architecture": c.architecture}
                                 for c in classes]},
        "data": {"root": "data", "split": "test", "num_images": len(rows), "num_skipped": len(skipped)},
        **summarize(predictions, [0.7, 0.9]),
        "skipped": list(skipped), "shortcut": None, "shortcut_reason": "not asked for", "baselines": {},
    }  # fmt: skip
    return metrics, predictions


def percent(value):
    return f"{100 * value:.1f} %"


def test_shows_every_family():
    metrics, predictions = make()
    (entry,) = metrics["unseen"]["per_generator"]
    for manipulation, architecture in itertools.product(MANIPULATIONS[1:], ARCHITECTURES[1:]):
        name = f"{manipulation} {architecture}"
        family = {"generator": name, "manipulation": manipulation, "architecture": architecture}
        metrics["unseen"]["per_generator"].append(entry | family)
    page = Page(render_report(metrics, predictions))
    words = {
        "EFS": "entire face synthesis",
        "FS": "face swap",
        "AM": "attribute manipulation",
        "FR": "face reenactment",
    }
    for manipulation, architecture in itertools.product(words, ARCHITECTURES[1:]):
        assert page.row(f"{manipulation} {architecture}")[1] == f"{words[manipulation]}, {architecture}"


def test_shows_the_figures():
    metrics, predictions = make()
    page = Page(render_report(metrics, predictions))
    assert page.row("Seen accuracy ↑")[1] == percent(metrics["seen"]["accuracy"])
    assert page.row("OSCR ↑")[1] == percent(metrics["unseen"]["oscr"])
    assert page.row("FPR at 95 % TPR ↓")[1] == percent(metrics["unseen"]["fpr95"])
    accepted, rejected = page.row("Seen images accepted at 0.7 ↑"), page.row("Unseen images rejected at 0.7 ↑")
    assert accepted[1] == percent(metrics["thresholds"][0]["seen_acceptance"])
    assert rejected[1] == percent(metrics["thresholds"][0]["unseen_rejection"])
    low, high = metrics["seen"]["per_generator"][0]["recall_interval"]
    recall = percent(metrics["seen"]["per_generator"][0]["recall"])
    right = metrics["seen"]["per_generator"][0]["num_correct"]
    interval = f"{recall} {100 * low:.1f} – {100 * high:.1f}"
    assert ["red", "entire face synthesis, GAN", "6", str(right), interval, ""] in page.rows
    assert ["photo", "photograph", "0", "0", "–", "no test image"] in page.rows
    assert ["1", "red", *map(str, metrics["seen"]["confusion"][0])] in page.rows
    assert ["", "odd", *map(str, metrics["unseen"]["per_generator"][0]["named"])] in page.rows
    assert [row for row in page.rows if row[:3] == ["odd", "face swap, diffusion", "4"]]
    assert page.row("All images")[1:3] == ["0", "10"]
    assert "Color and spectrum alone" not in page.rows[0]
    assert page.items == ["seen", "●red", "●photo", "unseen", "△odd"]
    assert "bmrl 1.2.3" in page.text


def test_baselines_stand_beside_the_model():
    metrics, predictions = make()
    other, _ = make(num_seen=9, num_unseen=2)
    older = {**other, "thresholds": other["thresholds"][:1]}
    page = Page(render_report({**metrics, "shortcut": other, "baselines": {"CViT & co": older}}, predictions))
    assert page.rows[0][1:] == ["This model", "Color and spectrum alone", "CViT & co"]
    expected = [percent(one["unseen"]["oscr"]) for one in (metrics, other, older)]
    assert page.row("OSCR ↑")[1:] == expected
    assert page.row("Unseen images rejected at 0.9 ↑")[3] == "–"


def test_is_one_file_without_scripts_or_links():
    text = render_report(*make())
    page = Page(text)
    assert not {"script", "link", "iframe", "a", "object"} & set(page.tags)
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text
    sources = [value for name, value in page.attributes if name == "src"]
    assert len(sources) == 3
    for source in sources:
        head, _, data = source.partition(",")
        assert head == "data:image/png;base64"
        assert Image.open(BytesIO(base64.b64decode(data))).format == "PNG"


@pytest.mark.parametrize(
    "name", [HOSTILE, "a$b$c", r"$\frac$", "顔 生成器", "'\"><img src=x onerror=1>", "a&amp;b", "{{ 7 * 7 }}"]
)
def test_any_name_is_shown_as_it_is(name):
    skipped = [{"path": name, "generator": name, "reason": name}]
    metrics, predictions = make(names=(name, "photo"), skipped=skipped)
    metrics["model"]["name"] = metrics["data"]["root"] = metrics["shortcut_reason"] = name
    metrics["baselines"] = {name: make()[0]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of characters that its font lacks
        text = render_report(metrics, predictions)
    page = Page(text)
    assert "script" not in page.tags
    assert page.tags.count("img") == 3
    assert page.text.count(name) >= 6  # title, heading, root, reason, legend ...
    assert [name, name, name] in page.rows
    assert page.rows[0][-1] == name
    assert not [attribute for attribute, _ in page.attributes if attribute.startswith("on")]


def test_says_what_is_missing():
    metrics, predictions = make(num_unseen=0, num_seen=4)
    page = Page(render_report(metrics, predictions))
    text = " ".join(page.text.split())
    assert "Not drawn: a map needs at least 5 images, there are 4." in text
    assert "The test split holds no image of an unseen generator." in text
    assert "nothing is known of how the model treats one" in text
    assert "None: every image of the split was read." in text
    assert "alone) is not shown: not asked for." in text
    assert page.row("AUROC ↑")[1] == "–"


def test_without_detection():
    metrics, predictions = make()
    metrics["detection"] = {"seen": None, "all": None, "reason": "generators: ..."}
    assert "Not available: it needs real and generated classes" in Page(render_report(metrics, predictions)).text


def test_long_list_of_skipped_images_is_cut():
    skipped = [{"path": f"bad{i}.png", "generator": "red", "reason": "damaged"} for i in range(150)]
    page = Page(render_report(*make(skipped=skipped)))
    assert sum(row[0].startswith("bad") for row in page.rows) == 100
    assert "150 of 160 images could not be read" in " ".join(page.text.split())
    assert "The first 100 are listed" in page.text


def test_many_images_are_thinned_on_the_map():
    page = Page(render_report(*make(num_seen=1600, num_unseen=10)))
    assert re.search(r"\(805 of\s+1610 are drawn\)", page.text)


def test_needs_jinja(monkeypatch):
    metrics, predictions = make()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"Jinja2: not installed; it comes with the extra \[train\]"):
        render_report(metrics, predictions)
