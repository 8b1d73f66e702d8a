"""Plain, standard American English: spellings and phrases that may not come back into code, messages and pages."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = ("*.md", "*.toml", "Makefile", *(f"{folder}/**/*" for folder in (
    "bmrl", "benchmarks", "deploy", "docker", "docs", "examples", "scripts", "tests")))  # fmt: skip
SUFFIXES = {".md", ".py", ".toml", ".yaml", ".sh", ".j2", ""}
GENERATED = {"results", "_build", "api", "__pycache__"}
THINGS = (  # after "a", where "per" belongs
    "batch|block|call|channel|class|command|core|device|epoch|field|file|folder|format|generator|image|line|loss|metric|"
    "model|person|picture|pixel|process|rank|request|row|run|second|seed|sample|stage|step|thread|view"
)

REFUSED = {
    "a British spelling": (
        r"(?:colour|grey|behaviour|neighbour|favour|honour|centre[sd]?\b|licence|catalogue|artefact|analys(?:e[sd]?|ing)\b"
        r"|labell(?:ed|ing)|modell(?:ed|ing)|cancell(?:ed|ing)\b(?<!cancelled)|travell|learnt|whilst|amongst|programme\b"
        r"|(?:normal|optim|initial|general|organ|recogn|synchron|quant|regular|serial|summar|visual|minim|maxim)is(?:e|ing|ation))"
    ),
    "'per' is the word": (
        rf"\b(?:one|two|three|four|[1-9]\d*) (?!(?:of|from|in|on|that|with|as|than)\b)\w+ an? (?:{THINGS})\b"
    ),
    "an old word": r"\b(?:beside|anew|whoever|whatever|somebody|nobody|alike|hence|thereby|whence|shall)\b",
    "an odd phrase": (
        r"\b(?:in vain|be it that|very same|else than|otherwise than|contenders?|figures of|own affair"
        r"|worth while|let go of|words of PyTorch|PyTorch's words)\b"
    ),
    "'is not a' is meant": (
        r"\b(?<!there )(?:is|are) no (?:path|integer|number|module|field|folder|tensor|image|map|class|message)\b"
    ),
}


def texts():
    for pattern in PLACES:
        for path in sorted(ROOT.glob(pattern)):
            inside = path.relative_to(ROOT)
            if (
                path.is_file()
                and path.suffix in SUFFIXES
                and not GENERATED & set(inside.parts)
                and path != Path(__file__)
            ):
                yield inside, path.read_text(encoding="utf-8")


def found(pattern, text):
    return [" ".join(match[0].split()) for match in re.finditer(pattern, text, re.IGNORECASE)]


@pytest.mark.parametrize("reason", REFUSED)
def test_refused_words_are_not_used(reason):
    places = [f"{path}: {words}" for path, text in texts() for words in found(REFUSED[reason], text)]
    assert not places, f"{reason}:\n" + "\n".join(places)
