"""The command line as a person uses it."""

import gc
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from neuroedge.cli import serve
from neuroedge.contract.errors import Unavailable
from neuroedge.settings import Settings
from tests.conftest import environment
from tests.external import free_port


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`neuroedge ...`, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "neuroedge", *arguments], capture_output=True, text=True, env=env, timeout=300
    )


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    """--help is quick because it imports neither web, database nor model libraries."""
    done = run("--help")
    assert done.returncode == 0
    for command in ("serve", "worker", "demo", "models", "db", "users", "doctor"):
        assert command in done.stdout
    code = (
        "import sys; import neuroedge.cli.main;"
        "print([m for m in ('fastapi', 'pydantic', 'numpy', 'psycopg', 'valkey', 'httpx') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_the_catalogue_and_the_servers_come_without_services_and_web() -> None:
    """`models`, `db` and `doctor` need no more, and start in a third of the time."""
    code = (
        "import sys; from neuroedge.bootstrap import catalogue_of, open_servers, open_vault;"
        "heavy = ('fastapi', 'procrastinate', 'neuroedge.http', 'neuroedge.services', 'neuroedge.engines');"
        "print([m for m in heavy if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


@pytest.mark.parametrize("group", ["models", "db", "users", "serve", "worker", "demo", "doctor"])
def test_every_command_has_help(group: str) -> None:
    """A line on what it does and its options."""
    done = run(group, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


@pytest.mark.models
def test_models_verify_and_list(models_dir: Path, tmp_path: Path) -> None:
    """The pulled default set verifies; list shows it."""
    env = environment(tmp_path / "data", models_dir)
    done = run("models", "verify", env=env)
    assert done.returncode == 0, done.stderr
    assert "whisper-base: ok (4 files)" in done.stdout
    assert "all-minilm" in run("models", "list", env={**env, "COLUMNS": "200"}).stdout


def test_models_verify_names_missing_files_and_the_remedy(tmp_path: Path) -> None:
    """An empty store: exit status 1, each file with the command that mends it."""
    done = run("models", "verify", "whisper-base", env=environment(tmp_path / "data", tmp_path / "none"))
    assert done.returncode == 1
    assert "model.bin is missing; run `neuroedge models pull whisper-base`" in done.stderr


def test_an_unknown_model_is_a_readable_error(tmp_path: Path) -> None:
    """Two lines, no stack trace."""
    done = run("models", "pull", "nothing", env=environment(tmp_path / "data", tmp_path / "none"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: no model nothing")
    assert "hint:" in done.stderr


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    """Before anything starts."""
    env = environment(tmp_path / "data", tmp_path, NEUROEDGE_PORT="many")
    done = run("serve", env=env)
    assert done.returncode == 2
    assert "error: setting NEUROEDGE_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """With what to do about it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run("serve", "--port", port, env=environment(tmp_path / "data", tmp_path))
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "NEUROEDGE_PORT" in done.stderr


@pytest.mark.parametrize(("host", "expected"), [("0.0.0.0", "0.0.0.0"), (None, "127.0.0.2")])
def test_the_host_of_the_command_line_is_that_of_every_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str | None, expected: str
) -> None:
    """The gRPC server takes its address from the application's settings."""
    bound, built = list[str](), list[Settings]()

    def build_app(settings: Settings) -> None:
        built.append(settings)
        raise Unavailable("far enough")

    monkeypatch.setattr(serve, "settings_or_exit", lambda: Settings(data_dir=tmp_path, host="127.0.0.2"))
    monkeypatch.setattr(serve, "bind", lambda host, port: bound.append(host))
    monkeypatch.setattr("neuroedge.infra.telemetry.configure_logging", lambda **how: None)
    monkeypatch.setattr("neuroedge.bootstrap.build_app", build_app)
    try:
        with pytest.raises(SystemExit):
            serve.serve(host=host, port=0)
    finally:
        gc.enable()
    assert bound == [settings.host for settings in built] == [expected]


def test_an_unreachable_external_database_is_two_lines(tmp_path: Path) -> None:
    """serve ends with the error and hint, without a stack trace or the password."""
    env = environment(tmp_path / "data", tmp_path, POSTGRES_URL="postgresql://u:hidden-word@127.0.0.1:1/x")
    done = run("serve", "--port", "0", env=env)
    assert done.returncode == 1
    assert "error: PostgreSQL does not answer" in done.stderr
    assert "hint: check POSTGRES_URL" in done.stderr
    assert "hidden-word" not in done.stderr + done.stdout


def test_a_cache_address_without_a_scheme_is_named(tmp_path: Path) -> None:
    """Before anything starts."""
    done = run("serve", env=environment(tmp_path / "data", tmp_path, REDIS_URL="localhost:6379"))
    assert done.returncode == 2
    assert "error: setting" in done.stderr
    assert "redis" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_port_that_does_not_exist_is_refused(tmp_path: Path, command: str) -> None:
    """By the command line itself."""
    done = run(command, "--port", "99999", env=environment(tmp_path / "data", tmp_path))
    assert done.returncode == 2
    assert "65535" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("demo",), ("models", "pull")])
def test_a_folder_that_cannot_be_used_is_two_lines(tmp_path: Path, command: tuple[str, ...]) -> None:
    """A file stands where data and models should go."""
    (tmp_path / "file").write_text("")
    done = run(*command, env=environment(tmp_path / "file" / "data", tmp_path / "file" / "models"))
    assert done.returncode == 1
    error, hint = done.stderr.strip().splitlines()
    assert error.startswith(f"error: {tmp_path / 'file'}")
    assert hint.startswith("hint:")
    assert "NEUROEDGE_DATA_DIR" in hint


@pytest.mark.parametrize("organisation", ["x" * 300, "", "  "])
def test_users_create_checks_the_organisations_name(tmp_path: Path, organisation: str) -> None:
    """Before any server starts."""
    env = environment(tmp_path / "data", tmp_path, NEUROEDGE_PASSWORD="a good password")
    done = run("users", "create", "okay", "a@example.org", "--organisation", organisation, env=env)
    assert done.returncode == 2
    assert "error: organisation: expected 1 to 200 characters" in done.stderr
    assert not (tmp_path / "data").exists()


def test_db_status_then_upgrade_then_status(tmp_path: Path) -> None:
    """A new data directory: nothing, then up to date."""
    env = environment(tmp_path / "data", tmp_path)
    if "POSTGRES_URL" not in os.environ:
        first = run("db", "status", env=env)
        assert first.returncode == 1
        assert "schema at nothing" in first.stdout
        assert "neuroedge db upgrade" in first.stderr
    assert run("db", "upgrade", env=env).returncode == 0
    assert run("db", "status", env=env).returncode == 0


@pytest.mark.parametrize(
    ("name", "email", "password", "wrong"),
    [("x", "a@example.org", "a good password", "username"), ("okay", "none", "a good password", "email")],
)
def test_users_create_checks_its_input(tmp_path: Path, name: str, email: str, password: str, wrong: str) -> None:
    """The same rules as registration."""
    env = environment(tmp_path / "data", tmp_path, NEUROEDGE_PASSWORD=password)
    done = run("users", "create", name, email, env=env)
    assert done.returncode == 2
    assert f"error: {wrong}" in done.stderr


@pytest.mark.models
def test_doctor_is_content_with_a_good_installation(tmp_path: Path, models_dir: Path) -> None:
    """Libraries, device, disk, models, database and cache are ok."""
    done = run("doctor", env=environment(tmp_path / "data", models_dir, COLUMNS="200"))
    assert done.returncode == 0, done.stdout
    assert "FAILED" not in done.stdout
    for check in ("python", "processor", "free disk", "model whisper-base", "database", "cache"):
        assert check in done.stdout


def test_doctor_tells_what_is_wrong_and_how_to_mend_it(tmp_path: Path) -> None:
    """Missing models and an unreachable cache: exit status 1 with remedies."""
    env = environment(tmp_path / "data", tmp_path / "none", REDIS_URL="redis://127.0.0.1:1", COLUMNS="200")
    done = run("doctor", env=env)
    assert done.returncode == 1
    assert "run `neuroedge models pull whisper-base`" in done.stdout
    assert "check REDIS_URL" in done.stdout


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_hears_remembers_and_answers(tmp_path: Path, models_dir: Path) -> None:
    """The whole main job from the command line, twice on the same data."""
    env = environment(tmp_path / "data", models_dir, COLUMNS="160", NEUROEDGE_PORT=str(free_port()))
    first = run("demo", env=env)
    assert first.returncode == 0, first.stderr
    for text in ("transcribed", "2 speaker(s)", "memories", "[1] S", "Not in the recording", "/docs", "token"):
        assert text in first.stdout, text
    user = json.loads((tmp_path / "data" / "demo-user.json").read_text())
    second = run("demo", "--question", "Who is calling?", env=env)
    assert second.returncode == 0, second.stderr
    assert user["username"] in second.stdout
    missing = run("demo", "--audio", str(tmp_path / "none.wav"), env=env)
    assert missing.returncode == 1
    assert "there is no file" in missing.stderr
