"""The rooms of the package: each imports only from rooms below it, and no two modules import each other in a circle."""

import ast
from graphlib import TopologicalSorter

from tests.conftest import ROOT

SOURCE = ROOT / "src"
# From the lowest room to the highest; those of one line do not import each other.
ROOMS = (
    ("runtime",),
    ("data", "models"),
    ("objectives",),
    ("runs",),
    ("visualization",),
    ("evaluation", "training"),
    ("commands",),
)
RANKS = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((SOURCE / "vaelab").rglob("*.py"))
}


def _imports(module: str) -> set[str]:
    """The modules of this package that a module imports, also within its functions."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{module}: relative imports hide which room is meant"
            found |= {full if (full := f"{node.module}.{name.name}") in MODULES else node.module for name in node.names}
    return {name for name in found if name in MODULES and name != module}


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_the_package_holds_its_rooms_and_nothing_else() -> None:
    entries = {path.name for path in (SOURCE / "vaelab").iterdir() if not path.name.startswith("__pycache__")}
    assert entries == {*RANKS, "__init__.py", "py.typed"} & (entries | {"__init__.py"})
    assert len(RANKS) <= 9


def test_every_room_says_in_one_sentence_what_it_holds() -> None:
    for module, path in MODULES.items():
        if path.name == "__init__.py":
            sentence = ast.get_docstring(ast.parse(path.read_text()))
            assert sentence, f"{module} has no docstring"


def test_a_room_imports_only_from_rooms_below_it() -> None:
    wrong = [
        f"{module} imports {name}"
        for module in MODULES
        for name in sorted(_imports(module))
        if (here := _room(module)) and (there := _room(name)) != here and not RANKS.get(there, -1) < RANKS[here]
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter({module: _imports(module) for module in MODULES}).prepare()  # raises CycleError with the circle
