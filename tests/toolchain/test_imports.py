"""What import-linter does not look at: within the data plane and the simulator no files import each other in a circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def imports_of(package: Path) -> dict[str, set[str]]:
    """Module -> modules of the same package that it imports, for types alone or within functions too."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in package.rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        named = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                whole = {f"{node.module}.{one.name}" for one in node.names}
                named |= whole & files.keys() or {node.module} & files.keys()
            elif isinstance(node, ast.Import):
                named |= {one.name for one in node.names} & files.keys()
        found[name] = named - {name}
    return found


@pytest.mark.parametrize("package", ["llmops/gateway", "llmops/simulator"])
def test_no_files_import_each_other_in_a_circle(package: str) -> None:
    found = imports_of(ROOT / package)
    assert sum(map(len, found.values())) > 50
    try:
        TopologicalSorter(found).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))
