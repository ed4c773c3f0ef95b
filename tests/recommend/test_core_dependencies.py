"""A checkpoint in use needs the core dependencies, and nothing else that happens to be installed."""

import subprocess
import sys

from mgwa_pyg.train import CollaborativeConfig, fit

# Nothing can be imported but Python's own modules, the core dependencies, and what these depend on.
PROGRAM = """
import re, sys
from importlib import metadata

def needed(name, seen):
    if name in seen:
        return
    seen.add(name)
    for line in metadata.requires(name) or []:
        found = re.match(r"[\\w.-]+", line)[0].lower().replace("-", "_")
        if "extra ==" not in line:
            try:
                needed(found, seen)
            except metadata.PackageNotFoundError:
                pass  # Of another platform.

core = set()
needed("mgwa_pyg", core)
allowed = set(sys.stdlib_module_names) | {"mgwa_pyg"}
for module, owners in metadata.packages_distributions().items():
    if {owner.lower().replace("-", "_") for owner in owners} & core:
        allowed.add(module)
assert "torch_geometric" in allowed and not allowed & {"lightning", "matplotlib", "rich"}

class OnlyTheCore:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in allowed or name.startswith("_sysconfigdata"):
            return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(OnlyTheCore, sys.meta_path)
from mgwa_pyg.recommend import Recommender
recommender = Recommender.load(sys.argv[1])
assert len(recommender.recommend(3)) == 10
assert len(recommender.recommend_for([1, 2])) == 10
assert recommender.explain(3, 5).sentence()
assert not {"lightning", "matplotlib", "mgwa_pyg.train"} & set(sys.modules)
"""


def test_a_checkpoint_is_used_with_core_dependencies_alone(synthetic, tmp_path):
    fit(synthetic, CollaborativeConfig(epochs=1), tmp_path)
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], check=True)
