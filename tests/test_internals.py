"""The table of private APIs in docs/design.md, checked against the code both ways."""

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from pkgutil import resolve_name
from types import FunctionType, ModuleType
from typing import NamedTuple

import pytest

from lls_openai import stack
from lls_openai.server.patches import PATCHES
from tests.support import docs
from tests.support.run_yaml import PROJECT

PACKAGE = PROJECT / "lls_openai"
MAX_ROWS = 20


class Entry(NamedTuple):
    """A name of the table; `name` has parameters if it is called or overridden."""

    file: str
    owner: str
    name: str


def _split(names: str) -> list[str]:
    return re.split(r", (?![^(]*\))", names)


def _entries() -> Iterator[Entry]:
    """Yield the names that the installed server has."""
    for files, llama_stack, ogx, names, *_ in TABLE:
        owner = llama_stack
        if stack.IS_OGX:
            owner = ogx.replace("same", llama_stack.replace("llama_stack.", "ogx."))
        if owner != "none":
            split = re.split(r", (?![^(]*\))", names)
            yield from (
                Entry(f, owner, n) for f, n in product(files.split(", "), split)
            )


TABLE = docs.rows(docs.section("docs/design.md", "Private APIs in use"))
ENTRIES = list(_entries())
FILES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


@cache
def _names(owner: object) -> set[str]:
    """Return the names in a module, or in a class and its methods."""
    classes = getattr(owner, "__mro__", ())
    functions = [f for each in classes for f in vars(each).values()]
    codes = [f.__code__ for f in functions if isinstance(f, FunctionType)]
    set_by_methods = {name for code in codes for name in code.co_names}
    return {*dir(owner), *set_by_methods, *getattr(owner, "model_fields", ())}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: f"{e.owner}.{e.name}")
def test_private_api_exists_with_its_parameters(entry: Entry) -> None:
    name, is_called, parameters = entry.name.rstrip(")").partition("(")
    owner = resolve_name(entry.owner)

    assert name in _names(owner), entry.file
    if is_called:
        called = inspect.signature(getattr(owner, name))
        found = [each for each in called.parameters if each != "self"]
        assert ", ".join(found) == parameters, entry.file


def test_table_of_private_apis_is_short() -> None:
    assert len(TABLE) <= MAX_ROWS


def _listed(file: str) -> set[str]:
    """Return the names of the table for a file, and the classes that have them."""
    entries = [entry for entry in ENTRIES if entry.file == file]
    owners = {entry.owner.rpartition(":")[2] for entry in entries}
    return owners | {entry.name.partition("(")[0] for entry in entries}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[3])
def test_listed_private_api_is_in_use(row: list[str]) -> None:
    """Each file uses a name of its row, and each name is used."""
    texts = [(PACKAGE / file).read_text() for file in row[0].split(", ")]
    names = [name.partition("(")[0] for name in _split(row[3])]

    def uses(text: str, name: str) -> bool:
        # A class is used by calling it, an application too.
        return name == "__call__" or bool(re.search(rf"\b{name}\b", text))

    assert [n for n in names if not any(uses(text, n) for text in texts)] == []
    owner = row[1].rpartition(":")[2]
    assert all(any(uses(text, name) for name in [owner, *names]) for text in texts)


def _is_of_server(value: object) -> bool:
    """Whether this is a module or a class of Llama Stack or OGX."""
    home = value.__name__ if isinstance(value, ModuleType) else value.__module__
    return home.startswith(f"{stack.NAME}.")


def _used(path: Path) -> Iterator[str]:
    """Yield the names of the server, and the private names of other packages."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    imports = [
        alias
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module == "lls_openai.stack"
        for alias in node.names
        if hasattr(getattr(stack, alias.name), "__name__")
        and _is_of_server(getattr(stack, alias.name))
    ]
    yield from (a.name for a in imports if isinstance(getattr(stack, a.name), type))
    modules = {alias.asname or alias.name for alias in imports}
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    own = {node.attr for node in attributes if isinstance(node.ctx, ast.Store)}
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    own |= {node.name for node in nodes if isinstance(node, ast.AsyncFunctionDef)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name)}
    for node in attributes:
        of_module = isinstance(node.value, ast.Name) and node.value.id in modules
        is_private = node.attr.startswith("_") and not node.attr.endswith("__")
        if of_module or (is_private and node.attr not in own | {"_exit"}):
            yield node.attr


def _overridden(file: str) -> Iterator[str]:
    """Yield the methods that replace one of a base class of another package."""
    module = resolve_name(f"lls_openai.{file.removesuffix('.py').replace('/', '.')}")
    for kind in vars(module).values():
        if isinstance(kind, type) and kind.__module__ == module.__name__:
            foreign = [b for b in kind.__mro__[1:] if _is_undocumented(b)]
            names = {name for base in foreign for name in vars(base)}
            # Its `__init__` and `__call__` are those of any ASGI middleware.
            own = {n for n, v in vars(kind).items() if isinstance(v, FunctionType)}
            yield from (name for name in own & names if not name.endswith("__"))


def _is_undocumented(base: type) -> bool:
    return base.__module__.startswith((f"{stack.NAME}.", "uvicorn.", "aiohttp."))


# `stack.py` has the modules whose names the other files use.
@pytest.mark.parametrize("file", [each for each in FILES if each != "stack.py"])
def test_private_api_in_use_is_listed(file: str) -> None:
    used = {*_used(PACKAGE / file), *_overridden(file)}

    assert sorted(used - _listed(file)) == []


def test_every_patched_method_is_listed() -> None:
    patched = {f"{owner.__name__}.{name}" for owner, name, _ in PATCHES}
    entries = [entry for entry in ENTRIES if entry.file == "server/patches.py"]
    listed = {
        f"{entry.owner.rpartition(':')[2]}.{entry.name.partition('(')[0]}"
        for entry in entries
    }

    # `StackApp` has it from its base class.
    assert patched - listed == {"StackApp.__call__"}
    assert "FastAPI.__call__" in listed


def test_only_stack_imports_the_server() -> None:
    importing = re.compile(r"(?m)^\s*(?:from|import) (?:llama_stack|ogx)")
    found = {file for file in FILES if importing.search((PACKAGE / file).read_text())}

    assert found == {"stack.py"}


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("NetworkConfig", f"headers{' limits' * stack.IS_OGX} proxy timeout tls"),
        ("TLSConfig", "ciphers client_cert client_key min_version verify"),
        ("ProxyConfig", "cacert http https no_proxy url"),
        ("TimeoutConfig", "connect read"),
    ],
)
def test_every_field_of_the_network_block_is_known(model: str, fields: str) -> None:
    """A new field would not be honoured."""
    there = getattr(stack.network, model).model_fields

    assert " ".join(sorted(there)) == fields
