"""The picture in docs/architecture.md holds: which subpackage imports which, and what the core needs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mgwa_pyg.nn
from mgwa_pyg.recommenders import RECOMMENDERS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mgwa_pyg"
# From low to high: a subpackage imports only what stands before it.
SUBPACKAGES = [
    "utils",
    "ops",
    "datasets",
    "sampler",
    "nn",
    "recommenders",
    "evaluation",
    "train",
    "recommend",
]
# Those that know nothing of each other although one stands above the other.
STRANGERS = {
    ("datasets", "ops"),
    ("sampler", "ops"),
    ("sampler", "datasets"),
    ("nn", "datasets"),
    ("nn", "sampler"),
    ("evaluation", "nn"),
    ("evaluation", "recommenders"),
    ("evaluation", "sampler"),
    ("evaluation", "ops"),
    ("utils", "ops"),
    ("recommend", "sampler"),
    ("recommend", "evaluation"),
    ("recommend", "train"),
}


def imports(file):
    """The names that a file imports from, wherever in it: in functions and for types alone, too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def module_graph():
    """The modules of the package, and those that each of them imports by name."""
    files = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    graph = {}
    for module, file in files.items():
        graph[module] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                graph[module] |= {alias.name for alias in node.names} & files.keys()
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:  # `from mgwa_pyg.ops import top_k` is of the module top_k alone.
                    whole = f"{node.module}.{alias.name}"
                    graph[module] |= {whole if whole in files else node.module} & files.keys()
    return graph


def circle_in(graph):
    """Modules each of which imports the next, the last one the first; empty where there are none."""
    done = set()

    def search(module, path):
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        found = next(filter(None, (search(other, [*path, module]) for other in sorted(graph[module]))), [])
        done.add(module)
        return found

    return next(filter(None, (search(module, []) for module in sorted(graph))), [])


def test_every_subpackage_is_known():
    subpackages = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert subpackages == set(SUBPACKAGES)


@pytest.mark.parametrize("subpackage", SUBPACKAGES)
def test_a_subpackage_imports_lower_ones_only(subpackage):
    for file in (PACKAGE / subpackage).rglob("*.py"):
        for name in imports(file):
            if match := re.match(r"mgwa_pyg\.(\w+)", name):
                other = match[1]
                if other in SUBPACKAGES and other != subpackage:
                    assert SUBPACKAGES.index(other) < SUBPACKAGES.index(subpackage), (
                        f"{file.name} imports {name}"
                    )
                    assert (subpackage, other) not in STRANGERS, f"{file.name} imports {name}"


def test_modules_import_each_other_in_no_circle():
    circle = circle_in(module_graph())
    assert not circle, " → ".join([*circle, circle[0]])


def test_a_circle_is_found_and_named():
    assert circle_in({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []
    assert circle_in({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"e"}, "e": {"b"}}) == ["b", "d", "e"]
    assert circle_in({"a": {"a"}}) == ["a"]


def test_the_tests_have_the_folders_of_the_package():
    def folders(root):
        return {file.parent.relative_to(root).as_posix() for file in root.rglob("*.py")}

    # What tests the benchmarks and the examples stands beside it.
    assert folders(ROOT / "tests") == folders(PACKAGE) | {"benchmarks", "examples"}


def test_the_documents_draw_the_same_subpackages():
    text = (ROOT / "docs" / "architecture.md").read_text()
    drawn = re.findall(r"^  (\w+)/", text, flags=re.MULTILINE)
    assert [subpackage for subpackage in drawn if subpackage in SUBPACKAGES] == SUBPACKAGES


def test_only_the_trainer_imports_lightning():
    for file in PACKAGE.rglob("*.py"):
        # The command line stands above all subpackages.
        names = "lightning" if file == PACKAGE / "cli.py" else ("lightning", "mgwa_pyg.train")
        above = [name for name in imports(file) if name.startswith(names)]
        assert not above or file.parent.name == "train", f"{file} imports {above}"


def test_the_trainer_knows_no_model_by_name():
    kinds = [*RECOMMENDERS.values(), *(kind.config_class for kind in RECOMMENDERS.values())]
    names = {*mgwa_pyg.nn.__all__, *(kind.__name__ for kind in kinds)}
    for file in (PACKAGE / "train").glob("*.py"):
        if file.name != "__init__.py":  # There the hyper-parameters are passed on.
            nodes = list(ast.walk(ast.parse(file.read_text())))
            used = {node.id for node in nodes if isinstance(node, ast.Name)}
            used |= {node.value for node in nodes if isinstance(node, ast.Constant)}
            assert not used & (names | {*RECOMMENDERS}), file


def test_every_file_says_what_it_is_for():
    for folder in ("mgwa_pyg", "examples", "benchmarks", "tests"):
        for file in (ROOT / folder).rglob("*.py"):
            assert ast.get_docstring(ast.parse(file.read_text())), file


@pytest.mark.smoke
def test_the_core_needs_no_extra():
    program = (
        "import sys\n"
        "for name in ('lightning', 'rich', 'matplotlib', 'torch_scatter', 'pytest'):\n"
        "    sys.modules[name] = None\n"
        "import mgwa_pyg.ops, mgwa_pyg.nn, mgwa_pyg.datasets, mgwa_pyg.sampler, mgwa_pyg.evaluation\n"
        "import mgwa_pyg.recommenders, mgwa_pyg.recommend\n"
        "import torch\n"
        "conv = mgwa_pyg.nn.GatedAggregationConv(4, 2, num_relations=2)\n"
        "conv(torch.randn(3, 4), torch.tensor([[0, 1], [2, 2]]), torch.tensor([0, 1]))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
