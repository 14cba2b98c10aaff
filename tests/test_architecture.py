"""The rules that hold for every file: which part may import which, and what must not be in the tree at all."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("model", "service", "worker")
KERNEL = tuple(
    f"service.core.{name}"
    for name in (
        *("atomic_write", "disk", "errors", "limits", "object_keys", "places", "requests", "strict_json"),
        *(
            f"options.{name}"
            for name in (
                *("anomalydiffusion", "baselines", "common", "declaration", "dualanodiff", "evaluation"),
                *("learned", "methods", "combinations", "presets", "quality"),
            )
        ),
        *(
            f"uploads.{name}"
            for name in ("decoding", "images", "listing", "names", "pairs", "problems", "reading", "specks")
        ),
    )
)
"""What the library may use of the service; with all that it imports in turn, plain code over NumPy and Pillow."""

FLOORS = 9
"""At most so many between the types of `model/` and its command line."""

COMMAND, COMMAND_MAY_USE = "model/cli", ("service.cli", "service.client", "service.embedded")
"""The one command shows the service's commands beside the library's, and its demo runs through the service."""

FORBIDDEN = {
    "model": ("fastapi", "starlette", "uvicorn", "celery", "kombu", "redis", "boto3", "botocore", "service", "worker"),
    "service": ("model", "worker", "torch", "diffusers", "transformers", "peft", "accelerate"),
    "worker": ("fastapi", "starlette", "uvicorn", "service"),
}
EXCEPT = {"model": KERNEL, "service": (), "worker": ("service.core",)}
PICKLES = ("pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")
LARGEST = 16 * 2**20
"""Bytes; weights are kept in shards below it, so that any Git host takes the repository."""


def sources(*parts: str) -> list[Path]:
    return sorted(file for part in parts for file in (ROOT / part).rglob("*.py"))


def in_tree() -> list[Path]:
    """Every file that Git tracks or would add; without Git (an unpacked archive) there is no telling what belongs."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a Git checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def imports(tree: ast.Module, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of all that is imported, also inside functions; `package` is the file's own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def imports_of(file: Path) -> list[tuple[int, str]]:
    return list(imports(ast.parse(file.read_text()), file.relative_to(ROOT).parent.parts))


def module_of(name: str) -> str:
    """The module that a full dotted name lies in, or is."""
    parts = name.split(".")
    while not ROOT.joinpath(*parts).with_suffix(".py").is_file():
        parts.pop()
    return ".".join(parts)


def within(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def test_imports_are_resolved_to_full_names() -> None:
    code = "import a.b\nfrom c import d\nfrom . import e\nfrom ..core.f import g\ndef h():\n    import i"
    found = [name for _, name in imports(ast.parse(code), ("service", "api"))]
    assert sorted(found) == ["a.b", "c.d", "i", "service.api.e", "service.core.f.g"]


@pytest.mark.parametrize("part", PARTS)
def test_imports_point_one_way(part: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in sources(part)
        for line, name in imports_of(file)
        if within(name, FORBIDDEN[part])
        and not within(name, EXCEPT[part])
        and not (file.is_relative_to(ROOT / COMMAND) and within(name, COMMAND_MAY_USE))
    ]
    assert not wrong, "\n".join(wrong)


def test_rooms_of_the_library_stand_on_few_floors_without_circles() -> None:
    """A room is a folder or file of `model/`; it stands on the highest of those that it imports."""
    below: dict[str, set[str]] = {}
    for file in sources("model"):
        room = file.relative_to(ROOT / "model").parts[0].removesuffix(".py")
        wanted = {name.split(".")[1] for _, name in imports_of(file) if name.startswith("model.")}
        below.setdefault(room, set()).update(wanted - {room})
    floors: dict[str, int] = {}
    while rest := below.keys() - floors.keys():
        ready = {room for room in rest if below[room] & below.keys() <= floors.keys()}
        assert ready, f"these import each other in a circle: {', '.join(sorted(rest))}"
        floors |= {room: 1 + max((floors[other] for other in below[room] & below.keys()), default=0) for room in ready}
    assert max(floors.values()) <= FLOORS, floors


def test_the_kernel_of_the_library_needs_nothing_heavy() -> None:
    allowed = (*sys.stdlib_module_names, "_typeshed", "numpy", "PIL", "pydantic", "pydantic_core", "service.core")
    pending, seen, wrong = set(KERNEL), set(), []
    while pending:
        module = pending.pop()
        seen.add(module)
        for line, name in imports_of(ROOT / f"{module.replace('.', '/')}.py"):
            if not within(name, allowed):
                wrong.append(f"{module}:{line} imports {name}")
            elif within(name, ("service.core",)):
                pending |= {module_of(name)} - seen
    assert not wrong, "\n".join(wrong)


def test_the_service_starts_without_torch() -> None:
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in sources("service")
    ]
    code = f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert "service" in loaded
    assert loaded.isdisjoint(FORBIDDEN["service"])


def test_nothing_is_unpickled() -> None:
    wrong = []
    for file in sources(*PARTS, "tests"):
        place = file.relative_to(ROOT)
        wrong += [f"{place}:{line} imports {name}" for line, name in imports_of(file) if within(name, PICKLES)]
        wrong += [f"{place}:{line} unpickles" for line in unpickling_calls(ast.parse(file.read_text()))]
    assert not wrong, "\n".join(wrong)


def unpickling_calls(tree: ast.Module) -> Iterator[int]:
    """Lines that call `torch.load` without `weights_only=True`, or NumPy with `allow_pickle=True`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            true = {
                keyword.arg
                for keyword in node.keywords
                if isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            }
            if ast.unparse(node.func) == "torch.load" and "weights_only" not in true:
                yield node.lineno
            if "allow_pickle" in true:
                yield node.lineno


def test_unpickling_calls_are_found() -> None:
    calls = ["torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)"]
    calls += ["torch.load(f, weights_only=True)", "np.load(f)", "json.load(f)"]
    assert list(unpickling_calls(ast.parse("\n".join(calls)))) == [1, 2, 3]


def test_no_file_names_a_folder_of_the_place_it_was_written_in() -> None:
    workplace = b"/" + b"work/"  # in two pieces, so that this file does not name it
    wrong = [str(file.relative_to(ROOT)) for file in in_tree() if workplace in file.read_bytes()]
    assert not wrong, "\n".join(wrong)


def test_no_file_is_too_large_for_a_git_host() -> None:
    wrong = [f"{file.relative_to(ROOT)}: {size} bytes" for file in in_tree() if (size := file.stat().st_size) > LARGEST]
    assert not wrong, "\n".join(wrong)


def test_json_is_written_by_the_one_function_that_refuses_nan() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in sources(*PARTS, "bench")
        if file != ROOT / "service/core/strict_json.py"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"json.dump", "json.dumps"}
    ]
    assert not wrong, "\n".join(wrong)
