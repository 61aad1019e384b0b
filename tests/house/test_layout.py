"""The house: who may import whom, no circles, nobody's private names, and nothing that reaches out of its room."""

import ast

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.quick

ROOMS = [
    "errors", "contracts", "stopping", "worlds", "files", "progress", "machine", "profiles", "backend", "config",
    "counters", "randomness", "data", "metrics", "reference", "runs", "figures", "conformance", "benchmark", "studies",
    "comparison", "cli",
]  # fmt: skip
"""Of vae_common, from the ground up: a room imports from those before it alone."""
FOR_HALVES = {
    "contracts", "errors", "backend", "config", "counters", "randomness", "data", "files", "machine", "worlds",
    "profiles", "runs.checkpoints", "runs.diffusers", "runs.epoch_records",
}  # fmt: skip
"""What a half may import of vae_common: a product does not import its oracle."""
ENGINE = "vae_common.conformance.engine"
FOR_THE_ENGINE = {"vae_common.errors", ENGINE}
"""What serves any pair of programs knows no model and no config."""
PACKAGES = ("jax_vae", "torch_vae", "vae_common", "scripts")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
IDS = [str(path.relative_to(ROOT)) for path in FILES]


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports(path):
    """(module, name or None) of every import, those inside functions too, but none for type checkers alone."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for statement in branch.body
        for node in ast.walk(statement)
    }
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, *([node.module] if node.module else [])])
            yield from ((base, alias.name) for alias in node.names)


def imported_modules(path):
    """The project's modules that a file imports."""
    for base, name in imports(path):
        whole = f"{base}.{name}"
        if whole in MODULES:
            yield whole
        elif base in MODULES:
            yield base


def room_of(module):
    return module.split(".")[1] if module.count(".") else None


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_imports_go_downward(path):
    own = module_of(path)
    package, _, _ = own.partition(".")
    for module in imported_modules(path):
        theirs = module.partition(".")[0]
        if package == "vae_common":
            assert theirs == "vae_common", f"{own} imports {module}"
            if room_of(module) is not None:
                assert ROOMS.index(room_of(module)) <= ROOMS.index(room_of(own)), f"{own} imports {module}"
        if package in ("jax_vae", "torch_vae") and theirs != package:
            assert any(f"{module}.".startswith(f"vae_common.{room}.") for room in FOR_HALVES), f"{own} imports {module}"
        if own.startswith(ENGINE):
            assert any(f"{module}.".startswith(f"{allowed}.") for allowed in FOR_THE_ENGINE), f"{own} imports {module}"


def test_no_benchmark_imports_the_conformance_engine():
    for name, path in MODULES.items():
        if name.startswith("vae_common.benchmark"):
            assert not any("conformance" in module for module in imported_modules(path)), name


def test_every_room_is_known():
    assert {room_of(name) for name in MODULES if name.startswith("vae_common.")} == set(ROOMS)


def test_no_circles():
    """Among modules, whatever the packages."""
    graph = {name: set(imported_modules(path)) - {name} for name, path in MODULES.items()}
    done, way = set(), []

    def walk(name):
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name in done:
            return
        way.append(name)
        for module in sorted(graph[name]):
            # A package's index gathers its modules, which may use one another.
            if not (MODULES[module].name == "__init__.py" and name.startswith(f"{module}.")):
                walk(module)
        done.add(way.pop())

    for name in graph:
        walk(name)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_no_private_name_crosses_a_module(path):
    tree = ast.parse(path.read_text())
    aliases = {name for base, name in imports(path) if name and f"{base}.{name}" in MODULES}
    for base, name in imports(path):
        ours = base.partition(".")[0] in PACKAGES
        assert not (ours and name and name.startswith("_")), f"{path.name} imports {base}.{name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            assert not node.attr.startswith("_") or node.attr.startswith("__"), f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("path", [p for p in FILES if p.is_relative_to(ROOT / "vae_common")], ids=str)
def test_what_is_shared_reads_no_command_line_and_no_records(path):
    """But for cli/, which is the command line, and worker and peers of the benchmark, programs of their own."""
    text, name = path.read_text(), module_of(path)
    programs = ("vae_common.benchmark.worker", "vae_common.benchmark.peers")
    if not name.startswith("vae_common.cli") and name not in programs:
        assert "sys.argv" not in text
    assert '/ "results"' not in text
    assert "import scripts" not in text
    assert "from scripts" not in text


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_functions_can_be_read(path):
    """At most 60 lines, nine arguments (of which the last are named where they are called), two nested loops' depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 65, f"{node.name} has {node.end_lineno - node.lineno} lines"
            assert len(node.args.posonlyargs) + len(node.args.args) <= 8, f"{node.name} takes too many arguments"
