"""How Sphinx builds the guides and the API reference; ``make docs`` runs it.

The source folder is the whole repository, so that links between pages work as they do in a checkout.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bmrl._version import __version__  # noqa: E402

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "bmrl"
author = copyright = "The bmrl developers"
version = release = __version__

BOUNDED = [
    "AnyEncoder",
    "Count",
    "Depth",
    "Head",
    "InnerShare",
    "Language",
    "NotNegative",
    "Parsing",
    "Positive",
    "Probability",
    "Quality",
    "Share",
]
"""Annotations that also say what a field's value may be: shown by their names."""

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/README"
include_patterns = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "*/README.md", "docs/**"]
include_patterns += ["benchmarks/results/*.md"]
exclude_patterns = ["**/.*", ".*", "docs/_*", "demo", "runs", "build", "dist", "tests"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_type_aliases = {name: name for name in BOUNDED}
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_custom_sections = ["Source"]
napoleon_use_ivar = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 100
toc_object_entries = False

html_theme = "furo"
html_title = f"bmrl {version}"
html_extra_path = ["_index/index.html"]
html_math_renderer = "mathml"
html_copy_source = html_show_sourcelink = False

PACKAGES = {
    "bmrl": "The package",
    "bmrl.ops": "Image operators",
    "bmrl.losses": "Losses",
    "bmrl.encoders": "Encoders",
    "bmrl.models": "Models",
    "bmrl.data": "Data",
    "bmrl.training": "Training",
    "bmrl.inference": "Inference",
    "bmrl.evaluation": "Evaluation",
    "bmrl.export": "Export and serving",
    "bmrl.generators": "Generators",
    "bmrl.errors": "Errors",
}
"""The modules whose public names make the reference, in its order."""


def directive(package: str, name: str, value: Any) -> str:
    """Return how Sphinx shows a public name."""
    if inspect.ismodule(value):
        return f".. automodule:: {value.__name__}\n   :members:\n\n.. currentmodule:: {package}\n"
    if inspect.isclass(value):
        bases = "" if value.__bases__ == (object,) else "   :show-inheritance:\n"
        return f".. autoclass:: {name}\n   :members:\n{bases}"
    if inspect.isroutine(value):
        return f".. autofunction:: {name}\n"
    return f".. py:data:: {name}\n   :type: {type(value).__name__}\n"


def page(package: str, title: str, shown: dict[int, str]) -> str:
    """Return the page of one package: its docstring and its public names, or links to where those are documented."""
    module = importlib.import_module(package)
    heading = f"{title} (``{package}``)"
    parts = [
        heading,
        "=" * len(heading),
        f".. automodule:: {package}\n   :no-members:\n",
        f".. currentmodule:: {package}\n",
    ]
    for name in module.__all__:
        value = getattr(module, name)
        if name.startswith("_") or (inspect.ismodule(value) and value.__name__ in PACKAGES):
            continue
        first = shown.setdefault(id(value), f"{package}.{name}")
        if first == f"{package}.{name}":
            parts.append(directive(package, name, value))
        else:
            parts.append(f"``{package}.{name}``: see :py:obj:`{first}`.\n")
    return "\n".join(parts)


def write_reference(app: Sphinx, config: Any) -> None:
    """Write the pages of the reference into ``docs/api``, from what each package's ``__all__`` names."""
    folder = ROOT / "docs" / "api"
    folder.mkdir(exist_ok=True)
    shown: dict[int, str] = {}
    for package in sorted(PACKAGES, key="bmrl".__eq__):  # bmrl last: its names are those of the others
        (folder / f"{package}.rst").write_text(page(package, PACKAGES[package], shown), encoding="utf-8")


CONTENTS = """
```{toctree}
:hidden:
:caption: Guides
../README
%(guides)s
```

```{toctree}
:hidden:
:caption: API reference
%(packages)s
```

```{toctree}
:hidden:
:caption: Project
../CONTRIBUTING
../benchmarks/README
../SECURITY
../deploy/README
../CHANGELOG
```

```{toctree}
:hidden:
:caption: Results
:glob:
../benchmarks/results/*
```
"""


def add_contents(app: Sphinx, docname: str, source: list[str]) -> None:
    """Append the tables of contents to the index, where they would only disturb a reader of the checkout.

    Result files are tables without a title, and get one.
    """
    if docname.startswith("benchmarks/results/"):
        source[0] = f"# {Path(docname).name}\n\n{source[0]}"
    if docname == root_doc:
        guides = sorted(path.stem for path in Path(__file__).parent.glob("*.md") if path.stem != "README")
        source[0] += CONTENTS % {
            "guides": "\n".join(guides),
            "packages": "\n".join(f"api/{package}" for package in PACKAGES),
        }


def shorten_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Leave out of a signature what is only Python's way of writing it: bounds, modules, and factories of defaults."""
    for pattern, short in (
        (r"Annotated\[(\w+), Bounds\([^)]*\)\]", r"\1"),
        (r"TypeAliasForwardRef\('(\w+)'\)", r"\1"),
        ("<factory>", "..."),
    ):
        signature = re.sub(pattern, short, signature) if signature else signature
    return signature, returns


def visit_math(translator: Any, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers show by themselves: no script, no network."""
    translator.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register what this file adds to Sphinx."""
    app.add_html_math_renderer("mathml", inline_renderers=(visit_math, None), block_renderers=(visit_math, None))
    app.connect("config-inited", write_reference)
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-signature", shorten_signature)
