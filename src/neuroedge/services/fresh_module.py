"""A second copy of a module, made of its present source beside the one in use, which is not touched until `adopt`.

The copy runs under an alias: pydantic, typing and dataclasses resolve names through `sys.modules[cls.__module__]`, and
must find the copy's own there. Only this one module is executed; what it imports is what is already loaded.
"""

import importlib.util
import itertools
import sys
import typing
from importlib.machinery import SourceFileLoader
from types import CodeType, FunctionType, ModuleType

_numbers = itertools.count(2)


class _PresentSource(SourceFileLoader):
    """Compiles the file as it is now: a .pyc is judged by a time stamp of whole seconds."""

    def get_code(self, fullname: str) -> CodeType:
        """The code of the file."""
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def alias_of(module: ModuleType) -> str:
    """A new name for a copy, in the same package, so that relative imports mean the same."""
    leaf = f"{module.__name__.rpartition('.')[2]}@{next(_numbers)}"
    return f"{module.__package__}.{leaf}" if module.__package__ else leaf


def load(module: ModuleType, *, alias: str) -> ModuleType:
    """Execute the module's source as `alias`, which stands in sys.modules until `adopt` or `discard`.

    Raises ImportError when it has no source file, OSError, SyntaxError, and whatever the code raises, SystemExit too.
    """
    path = module.__file__ or ""
    loader = _PresentSource(alias, path)
    spec = importlib.util.spec_from_file_location(alias, path, loader=loader, submodule_search_locations=None)
    if spec is None or not path.endswith(".py"):
        raise ImportError(f"{module.__name__} has no source file")
    copy = importlib.util.module_from_spec(spec)
    sys.modules[alias] = copy
    loader.exec_module(copy)
    return copy


def discard(alias: str) -> None:
    """Forget a copy, whether or not it was loaded or adopted."""
    sys.modules.pop(alias, None)


def adopt(copy: ModuleType, *, name: str) -> None:
    """Let the copy be the module `name` from now on: for importers, pickle and everything that looks a class up."""
    alias = copy.__name__
    for thing in list(vars(copy).values()):
        _rename(thing, alias, name)
    spec = importlib.util.spec_from_file_location(name, copy.__file__)
    assert spec is not None
    copy.__name__, copy.__spec__, copy.__loader__, copy.__package__ = name, spec, spec.loader, spec.parent
    if spec.submodule_search_locations is not None:
        copy.__path__ = spec.submodule_search_locations
    sys.modules[name] = copy
    package, _, leaf = name.rpartition(".")
    if package in sys.modules:
        setattr(sys.modules[package], leaf, copy)


def forget_types() -> None:
    """Empty typing's caches: they keep alive the classes that `Engine[Input, Output]` or `list[Item]` once named."""
    for empty in getattr(typing, "_cleanups", ()):  # as CPython's own test runner does
        empty()


def _rename(thing: object, alias: str, name: str) -> None:
    if isinstance(thing, (type, FunctionType)) and thing.__module__ == alias:
        thing.__module__ = name
        for inner in list(vars(thing).values()):
            _rename(inner, alias, name)
