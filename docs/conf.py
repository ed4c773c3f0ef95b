"""Settings of Sphinx: `make docs` builds the site from the pages of this folder and what they include."""

import os
import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

from mgwa_pyg.version import __version__

project = "mgwa_pyg"
project_copyright = "The mgwa_pyg developers"
release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx-mathjax-offline",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
highlight_language = "none"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

add_module_names = False
autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_inherit_docstrings = False  # Those of torch and Lightning refer to pages of theirs.
autosummary_generate = False
python_use_unqualified_type_names = True

nitpicky = True
nitpick_ignore_regex = [
    # In PyG's form of docstrings :obj: sets values, and types may be any words.
    ("py:obj", ".*"),
    ("py:class", "[a-z ]+"),
    # Names of other projects: the build needs no network. And private names.
    ("py:.*", r"(abc|collections|lightning|np|numpy|os|pandas|pathlib|pd|torch|torch_geometric)\..*"),
    ("py:class", "Callback|Data|DataFrame|ExplainerAlgorithm|HeteroData|LinkLoader|Logger|PyGExplanation"),
    ("py:class", "Rows|Series|SparseTensor|Table|Tensor"),
    ("py:.*", r".*\._\w+|DamagedFileError|mgwa_pyg\.datasets\.ids\..*"),
]

html_theme = "sphinx_rtd_theme"
html_title = f"mgwa_pyg {release}"
html_static_path = ["_static"]
html_css_files = ["pyg.css"]
html_show_sourcelink = False
html_show_sphinx = False

DOCS = Path(__file__).resolve().parent
INCLUDE = re.compile(r"```\{include\} (\S+)\n```\s*")
LINK = re.compile(r"(?<=\]\()([^)#\s]+)")


def included_by(page: Path) -> Path:
    """Return the file of the repository that is all that a page holds, or the page itself."""
    include = INCLUDE.fullmatch(page.read_text(encoding="utf-8"))
    return (page.parent / include[1]).resolve() if include else page


def read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put a file of the repository in place of the page that includes it, and let links to such files lead to
    their pages, as the site has no other.
    """
    page = DOCS / f"{docname}.md"
    file = included_by(page)
    sites = {included_by(other): other for other in DOCS.rglob("*.md")}

    def place(link: re.Match[str]) -> str:
        target = (file.parent / link[0]).resolve()
        if not target.exists():
            return link[0]
        return Path(os.path.relpath(sites.get(target, target), page.parent)).as_posix()

    app.env.note_dependency(str(file))
    source[0] = LINK.sub(place, file.read_text(encoding="utf-8"))


def document_constant(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Document a constant of a subpackage by the comment above it, in the module where it is made."""
    if what == "data":
        package, _, constant = name.rpartition(".")
        for module in [module for module in sys.modules if module.startswith(f"{package}.")]:
            comments = ModuleAnalyzer.for_module(module).find_attr_docs()
            lines[:] = comments.get(("", constant), lines)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", read_page)
    app.connect("autodoc-process-docstring", document_constant)
