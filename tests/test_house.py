"""The house keeps its order: who imports whom, how long a file is, and that everything public says what it does."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[1] / "linepicker"
FILES = sorted(path.relative_to(LIBRARY).as_posix() for path in LIBRARY.rglob("*.py"))

# Imports go one way: a module may import its own tier and those before it. A private module that is named nowhere
# belongs to the flow.
GROUND = {"errors", "model", "plans", "recipients"}
RECORD = {
    "_bytes",
    "_contact",
    "_decode",
    "_learned",
    "_observations",
    "_record",
    "_small",
    "_tally",
    "_windows",
}
CORE = {
    "_candidates",
    "_charge",
    "_conversation",
    "_core",
    "_failing",
    "_learn",
    "_line",
    "_nearness",
    "_priority",
    "_quiet",
    "_ranking",
    "_sketch",
}
FLOW = "the flow"
ROUTER = {
    "_arguments",
    "_desk",
    "_hosttime",
    "_logbook",
    "_process",
    "_promise",
    "_source",
    "_watch",
    "arouter",
    "recording",
    "router",
}
DOORS = {"_measured", "webhooks", "telemetry", "simulate", "replay", "web", "cli", "testing"}
TIERS = [
    GROUND,
    {"_bounds", "_sections", "policy"},
    RECORD,
    CORE,
    {"_company", "_kept", "_seen", "fleet"},
    {FLOW},
    ROUTER,
    DOORS,
]
PORTS = {"stores", "providers"}

# Nobody imports these, but the command line, which starts them.
LAST = {"simulate", "replay", "web", "cli", "testing"}

# What a pure module must not know: time, chance, and the world.
PURE = {*GROUND, "_bounds", "_sections", "policy", *RECORD, *CORE, FLOW}
WORLD = {
    "asyncio",
    "logging",
    "os",
    "random",
    "secrets",
    "socket",
    "sqlite3",
    "threading",
    "time",
    "uuid",
}

# Who may know a package: files or folders.
HOMES = {
    "cachetools": ("webhooks.py", "providers/"),
    "dataclasses": (),
    "httpx": ("providers/linq/", "testing/"),
    "jinja2": ("web/",),
    "markupsafe": ("web/",),
    "matplotlib": ("simulate/",),
    "opentelemetry": ("telemetry.py", "_measured.py"),
    "phonenumbers": ("recipients.py",),
    "psycopg": ("stores/postgres.py", "stores/_postgres_database.py"),
    "pytest": ("testing/fixtures.py",),
    "psycopg_pool": ("stores/_postgres_database.py",),
    "hiredis": ("stores/_redis_server.py",),
    "redis": (
        "stores/redis.py",
        "stores/_redis_keys.py",
        "stores/_redis_link.py",
        "stores/_redis_server.py",
    ),
    "sqlite3": ("stores/sqlite.py", "stores/_file.py"),  # the second opens the first one's file
    "standardwebhooks": ("webhooks.py",),
    "starlette": ("webhooks.py", "web/"),
    "tenacity": ("providers/linq/",),
    "typer": ("cli/",),
    "uvicorn": ("cli/",),
}

NAMELESS = {"common", "helper", "helpers", "manager", "managers", "util", "utils"}
LONGEST = 400


def room(path: str) -> str:
    """The name of the module or folder of the library that holds *path*, or of the tier it stands for."""
    name = path.split("/", maxsplit=1)[0].removesuffix(".py")
    named = set().union(*TIERS)
    return FLOW if name.startswith("_") and name not in {"__init__", "__main__", *named} else name


def imported(tree: ast.AST) -> Iterator[str]:
    """Every name that *tree* imports, at its top or inside, dotted: module, or module and name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (
                f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names
            )


def is_module(name: str) -> bool:
    """Whether *name*, dotted and without `linepicker.`, is a module or a folder of the library below its top."""
    file = LIBRARY / name.replace(".", "/")
    return "." in name and (file.is_dir() or file.with_suffix(".py").is_file())


def may_import(path: str, name: str) -> bool:
    """Whether the module at *path* may import *name*, which is dotted and without `linepicker.`."""
    here, there = room(path), room(name.split(".", maxsplit=1)[0])
    if here == "stores":
        return there in {"errors", "stores", "_process"}
    if here == "providers":
        asked = name in {"recipients.mask", "recipients.mask_all"}
        return asked or there in {"errors", "model", "providers"}
    if here == "__init__":
        return there in {"errors", "model", "plans", "policy", "router", "arouter"}
    tier = next((n for n, names in enumerate(TIERS) if here in names), -1)
    if there in LAST and there != here:
        return here in {"cli", "__main__"}
    if there in PORTS:
        inside = name.count(".") > 1 or is_module(name)
        return tier >= TIERS.index(RECORD) and (here in DOORS or not inside)
    return any(there in names for names in TIERS[: tier + 1])


def imports(path: str, tree: ast.AST) -> Iterator[str]:
    """What is wrong with what the module at *path* imports."""
    for name in imported(tree):
        package, _, rest = name.partition(".")
        if not package:
            yield f"imports {name} by a relative name"
        elif package == "linepicker":
            if not may_import(path, rest):
                yield f"may not import {name}"
        elif package in WORLD and room(path) in PURE:
            yield f"is pure and may not import {package}"
        elif package in HOMES and not any(path.startswith(home) for home in HOMES[package]):
            yield f"may not import {package}"


def length(path: str, tree: ast.Module, source: str) -> Iterator[str]:
    """Whether the file is too long: its lines without those of docstrings."""
    said = sum(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
    lines = len(source.splitlines()) - said
    if lines > LONGEST:
        yield f"has {lines} lines without docstrings, more than {LONGEST}"


def silence(tree: ast.Module | ast.stmt, name: str = "the module") -> Iterator[str]:
    """What is public in *tree* and has no docstring."""
    if isinstance(tree, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        if ast.get_docstring(tree) is None:
            yield f"has no docstring for {name}"
        if isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef):
            return
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            marks = {ast.unparse(each).rpartition(".")[2] for each in child.decorator_list}
            if not child.name.startswith("_") and not marks & {"overload", "setter"}:
                yield from silence(child, child.name)
        elif isinstance(child, ast.If | ast.Try):
            yield from silence(child)


def offences(path: str, source: str) -> list[str]:
    """Everything that the file at *path*, below the library's folder, does against the order of the house."""
    tree = ast.parse(source)
    wrong = [*imports(path, tree), *length(path, tree, source), *silence(tree)]
    if room(path) not in {*set().union(*TIERS), *PORTS, "__init__", "__main__"}:
        wrong.append("has no place in the table of imports")
    if NAMELESS & set(path.removesuffix(".py").split("/")):
        wrong.append("is named after nothing")
    return wrong


@pytest.mark.parametrize("path", FILES)
def test_the_house_is_in_order(path):
    """Each file of the library imports what it may, is short enough, and says what it does."""
    assert offences(path, (LIBRARY / path).read_text(encoding="utf-8")) == []


def test_the_whole_library_is_looked_at():
    """Files are found where they are, folders included."""
    assert {"__init__.py", "policy.py", "stores/__init__.py", "providers/__init__.py"} <= set(FILES)


def found(path, code):
    """The offences of a module at *path* that is documented and holds *code*."""
    return offences(path, f'"""A module."""\n\n{code}\n')


@pytest.mark.parametrize("module", sorted(WORLD))
@pytest.mark.parametrize(
    "path",
    [
        "errors.py",
        "model.py",
        "recipients.py",
        "policy.py",
        "_record.py",
        "_core.py",
        "_ranking.py",
        "_flow.py",
    ],
)
def test_the_core_knows_neither_time_nor_chance_nor_the_world(path, module):
    """A pure module that imports a clock, dice, a log, a socket or a thread is found out, wherever it hides the import."""
    wrong = f"is pure and may not import {module}"
    assert wrong in found(path, f"import {module}")
    assert wrong in found(path, f"from {module} import anything")
    assert wrong in found(path, f"def _late():\n    import {module} as harmless")
    assert wrong not in found("router.py", f"import {module}")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("errors.py", "policy"),
        ("model.py", "_record"),
        ("recipients.py", "policy"),
        ("policy.py", "_record"),
        ("policy.py", "stores"),
        ("_record.py", "_core"),
        ("_windows.py", "_ranking"),
        ("_core.py", "_flow"),
        ("_core.py", "fleet"),
        ("_ranking.py", "_flow"),
        ("_unheard_of.py", "router"),
        ("_core.py", "_unheard_of"),
        ("fleet.py", "_flow"),
        ("_flow.py", "router"),
        ("_flow.py", "_desk"),
        ("_flow.py", "stores.sqlite"),
        ("router.py", "webhooks"),
        ("router.py", "telemetry"),
        ("router.py", "stores.sqlite"),
        ("router.py", "providers.linq"),
        ("router.py", "testing"),
        ("router.py", "Router"),
        ("webhooks.py", "testing"),
        ("webhooks.py", "cli"),
        ("simulate/worlds.py", "testing"),
        ("simulate/worlds.py", "web"),
        ("testing/fake.py", "simulate"),
        ("web/page.py", "cli"),
        ("stores/sqlite.py", "model"),
        ("stores/memory.py", "_record"),
        ("providers/linq/client.py", "policy"),
        ("providers/linq/client.py", "stores"),
        ("providers/linq/client.py", "recipients.parse"),
        ("providers/linq/client.py", "router"),
        ("__init__.py", "testing"),
        ("__init__.py", "fleet"),
    ],
)
def test_an_import_against_the_stream_is_found(path, name):
    """An import from a later tier, of another's inside, or of one of the doors is an offence in either spelling."""
    wrong = f"may not import linepicker.{name}"
    head, _, leaf = f"linepicker.{name}".rpartition(".")
    assert found(path, f"from {head} import {leaf}") == [wrong]
    assert found(path, f"def _late():\n    from {head} import {leaf}") == [wrong]
    if name.islower() and "parse" not in name:
        assert f"{wrong}.something" in found(path, f"from linepicker.{name} import something")
        assert wrong in found(path, f"import linepicker.{name}")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("errors.py", "model.Decision"),
        ("policy.py", "errors.PolicyError"),
        ("_record.py", "policy.Policy"),
        ("_record.py", "stores.Record"),
        ("_core.py", "_ranking.Order"),
        ("_ranking.py", "_record"),
        ("_unheard_of.py", "fleet.Fleet"),
        ("_flow.py", "fleet.Fleet"),
        ("_flow.py", "stores.Write"),
        ("router.py", "_flow.reserve"),
        ("router.py", "stores.open"),
        ("router.py", "providers.Source"),
        ("webhooks.py", "router.Router"),
        ("cli/main.py", "testing.FakeLinq"),
        ("cli/main.py", "simulate.run"),
        ("cli/main.py", "providers.linq.client.LinqSource"),
        ("testing/fake.py", "testing.clock.ManualClock"),
        ("stores/sqlite.py", "errors.StoreError"),
        ("stores/sqlite.py", "stores.Write"),
        ("providers/linq/client.py", "recipients.mask"),
        ("providers/linq/client.py", "providers.linq.classify.classify"),
        ("__init__.py", "router.Router"),
    ],
)
def test_an_import_with_the_stream_is_none(path, name):
    """Imports from the same or an earlier tier, and of the ports, are in order."""
    head, _, leaf = f"linepicker.{name}".rpartition(".")
    assert found(path, f"from {head} import {leaf}") == []


@pytest.mark.parametrize(
    ("package", "path"),
    [
        ("httpx", "router.py"),
        ("httpx", "providers/__init__.py"),
        ("tenacity", "fleet.py"),
        ("sqlite3", "stores/__init__.py"),
        ("sqlite3", "cli/main.py"),
        ("redis", "stores/sqlite.py"),
        ("psycopg", "router.py"),
        ("cachetools", "_flow.py"),
        ("cachetools", "stores/memory.py"),
        ("phonenumbers", "policy.py"),
        ("typer", "web/page.py"),
        ("dataclasses", "model.py"),
    ],
)
def test_a_package_stays_at_home(package, path):
    """A package imported outside its file or folder is found out, whichever of its modules is asked for."""
    wrong = f"may not import {package}"
    assert any(wrong in each for each in found(path, f"import {package}"))
    assert any(wrong in each for each in found(path, f"from {package}.inner import thing"))
    for home in HOMES[package]:
        assert found(f"{home}main.py" if home.endswith("/") else home, f"import {package}") == []


def test_a_relative_import_is_found():
    """Modules are imported by their full names."""
    assert found("router.py", "from . import _flow") == ["imports .._flow by a relative name"]
    assert found("router.py", "from .model import Line") == [
        "imports .model.Line by a relative name"
    ]


def test_a_long_file_is_found():
    """A file may have 400 lines; those of docstrings are free, blank ones are not."""
    docstring = '"""One.\n\n' + "More.\n" * 500 + '"""\n'
    assert offences("policy.py", docstring + "x = 1\n" * 400) == []
    wrong = ["has 401 lines without docstrings, more than 400"]
    assert offences("policy.py", docstring + "x = 1\n" * 401) == wrong
    assert offences("policy.py", docstring + "x = 1\n" + "\n" * 399 + "x = 1\n") == wrong


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("def thing(): ...", "thing"),
        ("async def thing(): ...", "thing"),
        ("class Thing: ...", "Thing"),
        ("class Thing:\n    'A thing.'\n    def method(self): ...", "method"),
        ("class Thing:\n    'A thing.'\n    @property\n    def value(self): ...", "value"),
        ("class Thing:\n    'A thing.'\n    class Inner: ...", "Inner"),
        ("if True:\n    def thing(): ...", "thing"),
    ],
)
def test_what_is_public_and_silent_is_found(code, name):
    """Functions, classes, methods, properties: whatever has a public name has a docstring, in private modules as well."""
    for path in ("policy.py", "_core.py", "testing/fake.py"):
        assert found(path, code) == [f"has no docstring for {name}"]


@pytest.mark.parametrize(
    "code",
    [
        "def _thing(): ...",
        "class _Thing:\n    def method(self): ...",
        "class Thing:\n    'A thing.'\n    def __len__(self): ...",
        "def thing():\n    'A thing.'\n    def inner(): ...",
        "@typing.overload\ndef thing(): ...",
        "class Thing:\n    'A thing.'\n    @value.setter\n    def value(self, value): ...",
    ],
)
def test_what_is_private_may_be_silent(code):
    """Private names, inner functions, magic methods, overloads and setters need no docstring."""
    assert found("policy.py", code) == []


def test_a_module_without_a_docstring_is_found():
    """A module says what it is for."""
    assert offences("policy.py", "x = 1\n") == ["has no docstring for the module"]
    assert offences("policy.py", "") == ["has no docstring for the module"]


def test_a_module_without_a_place_is_found():
    """A new public module gets its place in the table before it is used."""
    assert found("registry.py", "x = 1") == ["has no place in the table of imports"]


@pytest.mark.parametrize("path", ["_utils.py", "stores/helpers.py", "web/common/page.py"])
def test_a_module_that_is_named_after_nothing_is_found(path):
    """A module's name says what is in it."""
    assert ("is named after nothing" in found(path, "x = 1")) == (not path.startswith("_"))
