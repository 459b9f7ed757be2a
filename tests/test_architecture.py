"""The rules that hold the house together, read from the source with ``ast``: who may import whom, and what.

An import inside a function counts like any other where rows and libraries are concerned; one under ``TYPE_CHECKING``
does not exist at run time and is left out. What is imported by name at run time (tables of paths) is not seen here.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: From the bottom up. ``x`` is that module alone, ``x.*`` is x and all below it; the longest entry that fits counts.
#: A module imports from rows below its own, and sideways only inside its package.
ROWS: tuple[tuple[str, ...], ...] = (
    ("app", "app.errors", "app.whole_file"),
    ("app.hardware", "app.json_file", "app.languages", "app.log", "app.model_names", "app.transcript"),
    ("app.defaults", "app.keys"),
    ("app.backends", "app.backends.base", "app.backends.rules", "app.backends.takes"),
    (
        "app.audio.*",
        "app.convert.*",
        "app.formats",
        "app.hub.*",
        "app.metrics",
        "app.recordings",
        "app.settings",
        "app.worker",
        "app.worker.awake",
        "app.worker.messages",
        "app.word_errors",
    ),
    ("app.catalog",),
    ("app.fitting",),
    ("app.backends.*",),
    ("app.worker.loop", "app.worker.child", "app.worker.decoder", "app.worker.models"),
    # Below here: no asyncio, no HTTP; safe in any process.
    ("app.worker.process",),
    ("app.client",),
    ("app.engine.*",),
    ("app.transcriber",),
    ("app.tuning",),
    ("app.api.*", "app.lan.*"),
    ("app.service", "app.service.*", "app.bench.*", "app.batch.*"),
    ("app.doctor.*",),
    ("app.commands.*",),
    ("app.cli",),
    ("app.__main__",),
)

#: The lowest module that may know of an event loop.
FIRST_ASYNC = "app.worker.process"
ASYNC_AND_HTTP = {"anyio", "asyncio", "fastapi", "h11", "http", "httpx", "starlette", "trio", "uvicorn"}

MODEL_LIBRARIES = {
    "ctranslate2",
    "faster_whisper",
    "mlx",
    "mlx_whisper",
    "_pywhispercpp",
    "pywhispercpp",
    "torch",
    "whisper",
}
#: What the HTTP process must never hold: big, native, or with a thread pool of its own.
HEAVY = MODEL_LIBRARIES | {"av", "numba", "numpy", "onnxruntime", "safetensors", "scipy", "tiktoken", "tokenizers"}
#: Where heavy libraries may be imported at the top: modules that only a child imports.
CHILD_ONLY = ("app.audio.*", "app.worker.child", "app.worker.decoder")

#: Library -> the only modules that may import it, at the top or in a function.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "fastapi": ("app.api.*",),
    "starlette": ("app.api.*",),
    "uvicorn": ("app.api.connection", "app.commands.*"),
    "av": ("app.audio.*", "app.worker.decoder"),
    "huggingface_hub": ("app.hub.*",),
    "sounddevice": ("app.batch.microphone",),
    "onnxruntime": ("app.audio.*", "app.worker.decoder"),
    **dict.fromkeys(MODEL_LIBRARIES, ("app.backends.*", "app.convert.*")),
}
#: The contract of the backends, which is not one of them.
NOT_A_BACKEND = {"app.backends", "app.backends.base", "app.backends.rules", "app.backends.takes"}

#: settings reads the environment; process hands it on to the children it starts.
MAY_READ_ENVIRONMENT = {"app.settings", "app.worker.process"}

MOST_LINES = 350
NAMES_THAT_SAY_NOTHING = {"common", "helper", "helpers", "misc", "util", "utils"}

#: Test modules that mirror no single package.
WHOLE_PRODUCT = {"architecture", "scripts"}
WHOLE_PRODUCT_FOLDERS = {"clients", "docs", "e2e", "faults", "hostile"}

#: Put together here so that this file does not hold them: places of the machine it was written on, and of packages.
NOT_FOR_COMMITS = ("../" + "shared", "/" + "work/", "pypi.org/" + "simple", "files.python" + "hosted.org")


@dataclass(frozen=True, slots=True)
class Import:
    """``name`` is dotted, from the top; ``at_top`` whether importing the module runs it."""

    name: str
    line: int
    at_top: bool

    @property
    def library(self) -> str:
        return self.name.partition(".")[0]


def imports_of(tree: ast.AST, module: str, *, is_package: bool) -> list[Import]:
    found: list[Import] = []

    def visit(node: ast.AST, at_top: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: (None if is_package else -1)]
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            found.extend(Import(f"{base}.{alias.name}", node.lineno, at_top) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                visit(child, at_top)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                visit(child, at_top and not inside)

    visit(tree, True)
    return found


@dataclass(frozen=True, slots=True)
class Module:
    name: str
    path: Path
    source: str
    tree: ast.Module
    imports: tuple[Import, ...]


@cache
def modules() -> dict[str, Module]:
    found = {}
    for path in sorted((ROOT / "app").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source, str(path))
        found[name] = Module(name, path, source, tree, tuple(imports_of(tree, name, is_package=is_package)))
    return found


def own(name: str) -> str | None:
    """The module of ours that an import of ``name`` (module, or module and attribute) reaches."""
    while name:
        if name in modules():
            return name
        name = name.rpartition(".")[0]
    return None


def fits(module: str, pattern: str) -> bool:
    stem = pattern.removesuffix(".*")
    return module == stem or (pattern != stem and module.startswith(stem + "."))


def row_of(module: str) -> int | None:
    fitting = [
        (len(pattern.removesuffix(".*")), pattern == module, row)
        for row, patterns in enumerate(ROWS)
        for pattern in patterns
        if fits(module, pattern)
    ]
    return max(fitting)[2] if fitting else None


def wrong_ways(module: str, imports: tuple[Import, ...]) -> Iterator[str]:
    row = row_of(module)
    for each in imports:
        target = own(each.name)
        if row is None or target is None or target == module:
            continue
        target_row = row_of(target)
        package = ".".join(module.split(".")[:2])
        sideways = target_row == row and fits(target, package + ".*")
        if target_row is not None and target_row >= row and not sideways:
            way = "sideways" if target_row == row else "up"
            yield f"{module}, line {each.line}, imports {way}: {target}."


def test_every_module_has_a_row() -> None:
    homeless = [name for name in modules() if row_of(name) is None]
    assert not homeless, f"Give a place in ROWS to: {', '.join(homeless)}."


def test_modules_import_from_lower_rows_only() -> None:
    wrong = [sentence for module in modules().values() for sentence in wrong_ways(module.name, module.imports)]
    assert not wrong, "\n".join(wrong)


def test_no_asyncio_and_no_http_below_the_process_handle() -> None:
    lowest = row_of(FIRST_ASYNC)
    assert lowest is not None
    wrong = [
        f"{module.name}, line {each.line}, imports {each.name}, but runs in children too."
        for module in modules().values()
        for each in module.imports
        if (row_of(module.name) or 0) < lowest and each.library in ASYNC_AND_HTTP
    ]
    assert not wrong, "\n".join(wrong)


def test_each_library_stays_where_it_belongs() -> None:
    wrong = [
        f"{module.name}, line {each.line}, imports {each.library}: only {' and '.join(ONLY_IN[each.library])} may."
        for module in modules().values()
        for each in module.imports
        if each.library in ONLY_IN
        and (
            not any(fits(module.name, place) for place in ONLY_IN[each.library])
            or (each.library in MODEL_LIBRARIES and module.name in NOT_A_BACKEND)
        )
    ]
    assert not wrong, "\n".join(wrong)


def test_heavy_libraries_are_imported_at_the_top_in_children_only() -> None:
    wrong = [
        f"{module.name}, line {each.line}, imports {each.library} at its top."
        for module in modules().values()
        for each in module.imports
        if each.at_top and each.library in HEAVY and not any(fits(module.name, place) for place in CHILD_ONLY)
    ]
    assert not wrong, "\n".join(wrong)


def loaded_with(start: str) -> set[str]:
    """Our modules that importing ``start`` runs, packages on the way included."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in modules():
            continue
        seen.add(name)
        waiting.append(name.rpartition(".")[0])
        waiting.extend(filter(None, (own(each.name) for each in modules()[name].imports if each.at_top)))
    return seen


def test_the_http_process_reaches_no_module_with_a_heavy_library() -> None:
    wrong = [
        f"app.api.app reaches {name}, which imports {each.library}."
        for name in sorted(loaded_with("app.api.app"))
        for each in modules()[name].imports
        if each.at_top and each.library in HEAVY
    ]
    assert not wrong, "\n".join(wrong)


def modules_after(statement: str) -> set[str]:
    """The top-level names in ``sys.modules`` of a fresh interpreter after ``statement``."""
    program = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_app_loads_no_model_library_no_numpy_and_no_pyav() -> None:
    assert not modules_after("import app.api.app") & HEAVY


@pytest.mark.parametrize("child", ["app.worker.child", "app.worker.decoder"])
def test_importing_a_child_loads_no_server(child: str) -> None:
    unwanted = {"anyio", "fastapi", "httpx", "pydantic", "pydantic_settings", "starlette", "uvicorn"}
    assert not modules_after(f"import {child}") & unwanted


def test_importing_the_model_child_loads_no_model_library_and_no_pyav() -> None:
    assert not modules_after("import app.worker.child") & (MODEL_LIBRARIES | {"av", "onnxruntime"})


def reads_of_the_environment(tree: ast.AST) -> Iterator[int]:
    names = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    for node in ast.walk(tree):
        touched = isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) == "os"
        taken = isinstance(node, ast.ImportFrom) and node.module == "os" and names & {each.name for each in node.names}
        if touched or taken:
            yield node.lineno


def test_the_environment_is_read_in_one_place() -> None:
    wrong = [
        f"{module.name}, line {line}, touches the environment; app.settings reads it, once."
        for module in modules().values()
        if module.name not in MAY_READ_ENVIRONMENT
        for line in reads_of_the_environment(module.tree)
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_stay_small() -> None:
    sizes = {module.path.relative_to(ROOT): len(module.source.splitlines()) for module in modules().values()}
    wrong = [
        f"{path} has {lines} lines; {MOST_LINES} are too many." for path, lines in sizes.items() if lines >= MOST_LINES
    ]
    assert not wrong, "\n".join(wrong)


def test_module_names_say_what_is_inside() -> None:
    wrong = [name for name in modules() if NAMES_THAT_SAY_NOTHING & set(name.split("."))]
    assert not wrong, f"Name by content: {', '.join(wrong)}."


def test_the_package_itself_holds_its_version_only() -> None:
    docstring, version = modules()["app"].tree.body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(version, ast.Assign)
    assert ast.unparse(version.targets[0]) == "__version__"


def test_tests_mirror_the_package() -> None:
    wrong = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        *folders, file = path.relative_to(ROOT / "tests").parts
        subject = file.removeprefix("test_").removesuffix(".py")
        if folders:
            fine = folders[0] in WHOLE_PRODUCT_FOLDERS or ".".join(["app", *folders]) in modules()
        else:
            fine = subject in WHOLE_PRODUCT or f"app.{subject}" in modules()
        if not fine:
            wrong.append(f"{path.relative_to(ROOT)} tests nothing under app/.")
    assert not wrong, "\n".join(wrong)


def test_nothing_committed_names_this_machine_or_a_registry_host() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wrong = []
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else b""
        if b"\0" not in content:
            wrong += [f"{name} names {word}." for word in NOT_FOR_COMMITS if word.encode() in content]
    assert not wrong, "\n".join(wrong)


# The rules above pass as easily where they see nothing: these plant what each must find.


def planted(source: str, module: str = "app.formats", *, is_package: bool = False) -> tuple[Import, ...]:
    return tuple(imports_of(ast.parse(source), module, is_package=is_package))


def test_an_import_upwards_is_found_inside_a_function_too() -> None:
    found = planted("def f():\n    from app.engine import lane\n")
    assert list(wrong_ways("app.formats", found)) == ["app.formats, line 2, imports up: app.engine.lane."]


def test_an_import_sideways_is_found_outside_a_package_only() -> None:
    assert list(wrong_ways("app.formats", planted("import app.settings")))
    assert not list(wrong_ways("app.engine.engine", planted("from app.engine import lane")))


def test_relative_imports_are_resolved() -> None:
    assert planted("from . import lane", "app.engine.engine")[0].name == "app.engine.lane"
    assert planted("from ..api import app", "app.engine.engine")[0].name == "app.api.app"
    assert planted("from .lane import Lane", "app.engine", is_package=True)[0].name == "app.engine.lane.Lane"


def test_imports_for_types_only_do_not_count() -> None:
    source = "if TYPE_CHECKING:\n    import numpy\nelse:\n    import av\nclass C:\n import mlx\ndef f():\n import torch"
    assert [(each.name, each.at_top) for each in planted(source)] == [("av", True), ("mlx", True), ("torch", False)]


def test_the_longest_entry_decides_the_row() -> None:
    assert row_of("app.backends.base") == row_of("app.backends")
    assert row_of("app.backends.fake") != row_of("app.backends.base")
    assert row_of("app.nowhere") is None


def test_touching_the_environment_is_found() -> None:
    source = "import os\nos.environ['A']\nos.getenv('A')\nfrom os import environ"
    assert sorted(reads_of_the_environment(ast.parse(source))) == [2, 3, 4]
