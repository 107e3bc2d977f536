"""The bounds of docs/style.md that no linter holds: file and function length, documented doors."""

import ast
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE_ROOTS = ("protos", "router", "services", "engines", "adapters", "tests")
FILE_LINES_MAX = 600
FILE_LINES_MEDIAN_MAX = 200
FUNCTION_LINES_MAX = 70
FUNCTION_LINES_P90_MAX = 40


def source_files() -> list[Path]:
    return sorted(
        path
        for root in SOURCE_ROOTS
        for path in (ROOT / root).rglob("*.py")
        if not path.stem.endswith(("_pb2", "_pb2_grpc"))
    )


def function_lengths(path: Path) -> dict[str, int]:
    tree = ast.parse(path.read_text())
    return {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_no_file_is_longer_than_the_bound() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in source_files()}
    assert {name: n for name, n in lengths.items() if n > FILE_LINES_MAX} == {}
    assert statistics.median(lengths.values()) <= FILE_LINES_MEDIAN_MAX


def test_no_function_is_longer_than_the_bound() -> None:
    lengths = {name: n for path in source_files() for name, n in function_lengths(path).items()}
    assert {name: n for name, n in lengths.items() if n > FUNCTION_LINES_MAX} == {}
    assert statistics.quantiles(lengths.values(), n=10)[-1] <= FUNCTION_LINES_P90_MAX


@pytest.mark.parametrize("root", ["protos", "router", "services", "engines", "adapters"])
def test_no_init_hides_the_other_source_roots(root: str) -> None:
    assert not (ROOT / root / "enginehouse" / "__init__.py").exists()


def test_every_public_module_class_and_function_says_what_it_is() -> None:
    bare = []
    for path in source_files():
        if path.is_relative_to(ROOT / "tests"):
            continue
        tree = ast.parse(path.read_text())
        if ast.get_docstring(tree) is None:
            bare.append(str(path.relative_to(ROOT)))
        bare += [
            f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and not node.name.startswith("_")
            and ast.get_docstring(node) is None
        ]
    assert bare == []
