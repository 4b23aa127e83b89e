"""A third party's package: an entry point adds its engine, and the contract's tests run as its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from neuroedge.services.engines import EngineDefect, discover, group
from tests.plugins import install

GREETING = '''"""Greets people.

Method: a template. Limits: English.
"""

from pydantic import Field

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput


class GreetingInput(EngineInput):
    """Whom to greet."""

    names: list[str] = Field(min_length=1, max_length=10, description="Names, in order.")
    {extra}


class GreetingOutput(EngineOutput):
    """The greeting."""

    text: str = Field(description="The greeting.")


class Greeting(Engine[GreetingInput, GreetingOutput]):
    """Says hello."""

    name = "greeting"
    title = "Greets people by name"
    method = "template"
    example = GreetingInput(names=["Ada"])

    async def run(self, payload: GreetingInput, ctx: EngineContext) -> GreetingOutput:
        """One greeting for all."""
        {run}
        return GreetingOutput(method=self.method, text="Hello " + ", ".join(payload.names))
'''
ITS_TESTS = '''"""Tests of the package."""

from greeting_engine import Greeting
from grumbling_engine import Greeting as Grumbling
from neuroedge.testing.contract import BadInputContract, EngineContract


class TestGreeting(EngineContract, BadInputContract):
    """The contract."""

    engines = (Greeting,)


class TestGrumbling(EngineContract, BadInputContract):
    """The contract."""

    engines = (Grumbling,)
'''


def package(folder: Path, *, name: str = "greeting", extra: str = "", run: str = "pass") -> dict[str, str]:
    """A package with the engine `name`, as pip would install it."""
    source = GREETING.replace("{extra}", extra).replace("{run}", run).replace('"greeting"', f'"{name}"')
    return install(folder, module=f"{name}_engine", source=source, engines={name: "Greeting"})


def test_an_installed_package_adds_its_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by its entry point, in the group "extension", beside all others."""
    package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    found = {engine.name: engine for engine in discover()}
    assert group(found["greeting"]) == "extension"
    assert "embedding" in found


def test_a_package_cannot_take_an_engines_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two engines of one name are a defect, told at start-up."""
    package(tmp_path, name="embedding")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineDefect, match="two engines are named embedding"):
        discover()


@pytest.mark.slow
def test_its_author_runs_the_contracts_tests_against_a_server(tmp_path: Path) -> None:
    """The plugin starts a server that has the package; a good engine passes, of a bad one each fault is named."""
    site = tmp_path / "site"
    package(site, name="grumbling", extra="loud: float = 1.0", run="assert payload.loud < 1e6")
    env = package(site)
    (tmp_path / "test_greeting.py").write_text(ITS_TESTS)
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "-p", "neuroedge.testing.plugin"]
    command += ["-c", os.devnull, f"--rootdir={tmp_path}", f"--basetemp={tmp_path / 'tmp'}", "test_greeting.py"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **env}, capture_output=True, text=True, timeout=280)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-2000:]
    passed = re.findall(r"^PASSED .*::(\w+)\[greeting\]", done.stdout, re.MULTILINE)
    failed = re.findall(r"^FAILED .*::(\w+)\[(\w+)\]", done.stdout, re.MULTILINE)
    assert len(passed) == len(set(passed)) == 9
    assert set(failed) == {
        ("test_every_field_is_described_and_unknown_ones_are_refused", "grumbling"),
        ("test_what_the_schema_forbids_is_a_422_that_names_the_field", "grumbling"),
        ("test_what_is_unusual_has_a_result_or_the_callers_error", "grumbling"),
    }
    assert "infinity at loud: 500" in done.stdout
    assert "a huge number at loud: 500" in done.stdout
