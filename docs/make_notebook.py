"""`python docs/make_notebook.py`: makes tour.ipynb of tour.md, its blocks as cells with what they print."""

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
_BLOCK = re.compile(r"```python\n(.*?)```\n*(?:```text\n(.*?)```)?", flags=re.DOTALL)


def notebook(page: str) -> dict[str, Any]:
    """Return the notebook of a page."""
    cells, end = [], 0
    for block in _BLOCK.finditer(page):
        cells += [_text(page[end : block.start()]), _code(block[1], block[2])]
        end = block.end()
    cells.append(_text(page[end:]))
    cells = [{"id": f"cell-{number}", **cell} for number, cell in enumerate(cells) if cell["source"]]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _text(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": _lines(text.strip())}


def _code(code: str, printed: str | None) -> dict[str, Any]:
    outputs = (
        [] if printed is None else [{"name": "stdout", "output_type": "stream", "text": _lines(printed)}]
    )
    cell = {"cell_type": "code", "execution_count": None, "metadata": {}}
    return {**cell, "outputs": outputs, "source": _lines(code.rstrip())}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def written(page: Path) -> str:
    """Return the file of a page's notebook."""
    return json.dumps(notebook(page.read_text(encoding="utf-8")), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (FOLDER / "tour.ipynb").write_text(written(FOLDER / "tour.md"), encoding="utf-8")
