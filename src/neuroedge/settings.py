"""All configuration: one frozen object, read from NEUROEDGE_* variables, the source systems' names as aliases.

Nothing secret has a default. What must stay secret and was not given (the JWT key, database passwords) is generated at
first start into `secrets.json` in the data directory, mode 0600, by `infra/datadir.py`.
"""

import re
import sys
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

GIB = 1024**3
MIB = 1024**2
_REDIS_SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")


def default_data_dir() -> Path:
    """Where data lives unless NEUROEDGE_DATA_DIR says otherwise.

    The platform's own place, but on macOS ~/.local/share/neuroedge as on Linux: one that no command line need quote.
    """
    if sys.platform == "darwin":
        return Path.home() / ".local" / "share" / "neuroedge"
    return Path(platformdirs.user_data_dir("neuroedge", appauthor=False))


def _names(name: str, *others: str) -> AliasChoices:
    return AliasChoices(f"NEUROEDGE_{name}", *others)


_LISTS = (
    "models_pinned",
    "models_warm",
    "exclusive_roles",
    "master_keys_former",
    "document_hosts",
    "memory_no_embedding",
    "memory_no_words",
    "llm_private_hosts",
)
"""Settings that are lists, separated by commas."""
_PATHS = (
    *("mcp_servers", "llm_providers", "data_dir", "models_dir"),
    *("grpc_tls_cert", "grpc_tls_key", "grpc_tls_client_ca"),
)
"""Settings that are files or folders."""


class Settings(BaseSettings):
    """Every setting; the first name of each is NEUROEDGE_<FIELD>, others are accepted aliases."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        env_prefix="NEUROEDGE_",
        hide_input_in_errors=True,  # it may be a secret
    )

    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="Folder for everything NeuroEdge keeps: databases, blobs, models, secrets. "
        "`~/.local/share/neuroedge` when not set (on Linux below XDG_DATA_HOME, if that is set).",
    )
    models_dir: Path | None = Field(
        default=None, description="Model store; `models/` in the data directory when not set."
    )
    host: str = Field(default="127.0.0.1", description="Address the HTTP server and the gRPC server bind.")
    port: int = Field(
        default=8080, ge=0, le=65535, validation_alias=_names("PORT", "PORT"), description="Port of the HTTP server."
    )
    grpc_port: int | None = Field(
        default=None, ge=0, le=65535, description="Port of the gRPC server, on the same address; none when not set."
    )
    grpc_tls_cert: Path | None = Field(
        default=None, description="PEM file of the gRPC server's certificate chain; without one it speaks plain HTTP/2."
    )
    grpc_tls_key: Path | None = Field(default=None, description="PEM file of the private key of that certificate.")
    grpc_tls_client_ca: Path | None = Field(
        default=None, description="PEM file of the authority whose certificates gRPC clients must show, if they must."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log line that is written."
    )
    log_format: Literal["json", "console"] = Field(default="json", description="JSON lines, or text for people.")

    postgres_url: SecretStr | None = Field(
        default=None,
        validation_alias=_names("POSTGRES_URL", "POSTGRES_URL", "DATABASE_URL"),
        description="External PostgreSQL, as a role that may migrate the schema. Embedded when not set.",
    )
    postgres_app_url: SecretStr | None = Field(
        default=None,
        description="External PostgreSQL as the application's role (no superuser, no BYPASSRLS). When not set, the "
        "role neuroedge_app is created by `neuroedge db upgrade` with a generated password.",
    )
    postgres_pool_size: int = Field(default=16, ge=4, le=200, description="Most database connections of one process.")
    redis_url: SecretStr | None = Field(
        default=None,
        validation_alias=_names("REDIS_URL", "REDIS_URL", "VALKEY_URL"),
        description="External Valkey or Redis. Embedded Valkey when not set.",
    )
    blob_url: str | None = Field(
        default=None,
        description="Object store (s3://, gs://, az://, file://); `blobs/` in the data directory when not set.",
    )

    master_key: SecretStr | None = Field(
        default=None,
        description="Wraps the keys of every organisation's content: 32 random bytes in base64 (`neuroedge keys new`), "
        "or the URI of a key in a key management service (aws-kms://, gcp-kms://, hcvault://). When not set, "
        "`master.key` in the data directory, generated at first start.",
    )
    master_keys_former: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        description="Earlier master keys, by commas, that still unwrap until `neuroedge keys rewrap` has run.",
    )

    jwt_secret: SecretStr | None = Field(
        default=None,
        validation_alias=_names("JWT_SECRET", "JWT_SECRET"),
        description="Key of the access tokens, at least 32 characters. Generated at first start when not set.",
    )
    access_token_ttl_s: int = Field(default=900, ge=60, le=86_400, description="Life of an access token, seconds.")
    refresh_token_ttl_s: int = Field(
        default=30 * 86_400, ge=3600, description="Life of a refresh token, seconds; each use replaces it."
    )
    self_registration: bool = Field(
        default=True, description="Whether /auth/register makes a user with an organisation of their own."
    )
    tenant_default: str | None = Field(
        default=None,
        max_length=200,
        validation_alias=_names("TENANT_DEFAULT", "TENANT_DEFAULT"),
        description="Name for the organisation of a self-registered user, instead of the user's name.",
    )
    login_attempts_per_minute: int = Field(
        default=20, ge=1, description="Failed and successful logins allowed a minute per user name and address."
    )
    argon2_memory_mib: int = Field(
        default=64,
        ge=19,
        le=1024,
        description="Memory one hash of a password takes (Argon2id, three passes), MiB; two are made at a time. Less "
        "makes logins cheaper, and guessing too; a password is hashed anew at its next login.",
    )

    model_device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto",
        validation_alias=_names("MODEL_DEVICE", "MODEL_DEVICE"),
        description="Device of the models; auto takes the best the runtime finds.",
    )
    model_threads: int = Field(default=0, ge=0, description="Threads of a model's computation; 0: the cores available.")
    models: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description='Model of a role, as "role=catalogue-id,role=catalogue-id", over the catalogue\'s defaults. None '
        "when not set.",
    )
    engine_proof_s: float = Field(
        default=120.0,
        gt=0,
        description="Longest a hot reload may take to import, build and prove an engine's new version, seconds.",
    )
    engine_drain_s: float = Field(
        default=30.0,
        gt=0,
        description="Longest a hot reload waits for calls that still run on the old version, seconds; then they go on.",
    )
    loop_block_limit_s: float = Field(
        default=10.0,
        ge=0,
        description="Longest an engine may hold up the event loop before it is interrupted, seconds; 0: never.",
    )
    usage_to_disk: bool = Field(
        default=False,
        description="Whether a call waits until its usage row is on disk. Else it waits until PostgreSQL has the row, "
        "and a crash of PostgreSQL or the machine can lose the last second of usage.",
    )
    requests_per_minute: int = Field(
        default=6000, ge=0, description="Engine calls an organisation may make a minute; 0: no limit."
    )
    ml_requests_per_minute: int = Field(
        default=1200, ge=0, description="Predictions of /api/v1/ml and /api/v1/analytics a minute; 0: no limit."
    )
    model_idle_s: int = Field(default=0, ge=0, description="Unload a model not used for so many seconds; 0: never.")
    model_wait_s: float = Field(
        default=60.0, gt=0, description="Longest a request waits for a model's memory and loading, seconds."
    )
    memory_budget_bytes: int = Field(
        default=0,
        ge=0,
        description="RAM the models of one process may take together; 0: four fifths of what is free at start.",
    )
    models_pinned: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Roles or ids of models that are never evicted, separated by commas."
    )
    exclusive_roles: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Roles whose model has the device to itself while it computes: before, every other process on the "
        "device unloads its models, and loads them again afterwards. Separated by commas, for example chat.",
    )
    device_name: str = Field(
        default="",
        max_length=200,
        description="Name of the device that processes share, the same for all of them; host name and kind by default.",
    )
    models_warm: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Roles or ids of models that are loaded at start, separated by commas."
    )

    cache_memory_bytes: int = Field(
        default=64 * MIB, ge=MIB, description="Memory of the cache of computed results in one process, bytes."
    )
    cache_disk_bytes: int = Field(
        default=GIB, ge=0, description="Disk of the cache of computed results, bytes; 0: none on disk."
    )

    worker: Literal["embedded", "external"] = Field(
        default="embedded", description="Run jobs inside the server, or leave them to `neuroedge worker` processes."
    )
    worker_concurrency: int = Field(default=1, ge=1, le=64, description="Jobs one worker runs at the same time.")
    job_heartbeat_s: float = Field(default=2.0, gt=0, description="Seconds between two signs of life of a worker.")
    job_stalled_s: float = Field(
        # More than the grace a stopping worker gives its jobs (jobs/worker.py), in which it shows no life.
        default=10.0,
        ge=5,
        description="Seconds without a sign of life after which a worker's jobs are resumed.",
    )

    task_concurrency: int = Field(
        default=2, ge=1, le=64, description="Background tasks one worker runs at the same time."
    )
    task_queue_limit: int = Field(
        default=10_000, ge=1, description="Most unfinished background tasks of one organisation; more get a 429."
    )
    batch_item_limit: int = Field(
        default=20_000, ge=1, description="Most waiting items of one organisation's bulk jobs; more get a 429."
    )
    task_retry_s: float = Field(
        default=2.0, gt=0, le=300, description="Seconds before a failed task's second run; doubled with each failure."
    )
    task_keep_days: float = Field(
        default=7.0, gt=0, description="Days a finished background task and its result are kept."
    )

    max_upload_bytes: int = Field(default=2 * GIB, ge=1, description="Largest upload, bytes.")
    max_body_bytes: int = Field(
        default=32 * MIB, ge=1024, description="Largest request body other than uploads, bytes."
    )
    max_audio_s: float = Field(default=4 * 3600.0, gt=0, description="Longest recording, seconds.")
    live_sessions: int = Field(
        default=8, ge=1, le=64, description="Live transcriptions of one organisation at the same time, in one process."
    )
    live_resume_s: float = Field(
        default=60.0, gt=0, le=3600, description="How long a live transcription waits for a lost connection, seconds."
    )
    live_stop_s: float = Field(
        default=6.0,
        ge=0,
        le=600,
        description="How long a stopping server lets live transcriptions say what they have heard, seconds; the time "
        "from the signal to stop until it is killed must be longer.",
    )
    document_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Hosts that documents may be fetched from, separated by commas: example.org, *.example.org, "
        "host:port, or * for any public host. None by default.",
    )
    document_max_bytes: int = Field(default=256 * MIB, ge=1, description="Largest document file, bytes.")
    document_max_pages: int = Field(default=3000, ge=1, description="Most pages of a document.")
    document_max_characters: int = Field(default=20_000_000, ge=1000, description="Most text in one document.")
    document_parse_s: float = Field(default=120.0, gt=0, description="Longest the reading of a file may take, seconds.")
    document_parse_memory_bytes: int = Field(
        default=2 * GIB, ge=256 * MIB, description="Address space of the process that reads a document, bytes."
    )
    document_fetch_s: float = Field(default=60.0, gt=0, description="Longest the fetching of a URL may take, seconds.")
    mcp_servers: Path | None = Field(
        default=None,
        description="TOML file of the MCP servers whose tools assistants may use; `mcp.toml` in the data directory "
        "when not set.",
    )
    chunk_tokens: int = Field(
        default=256, ge=16, description="Tokens of a document's chunk; at most what the embedding model reads."
    )
    chunk_overlap_tokens: int = Field(default=32, ge=0, description="Tokens that neighbouring chunks share.")
    memory_no_embedding: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Types of memories that are stored without an embedding, separated by commas; * for all. They are "
        "found by their words only.",
    )
    memory_no_words: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Types of memories that are stored without keyed hashes of their words, separated by commas; * for "
        "all. They are found by their meaning only.",
    )
    llm_providers: Path | None = Field(
        default=None,
        description="TOML file of the operator's providers of language models; `providers.toml` in the data directory "
        "when not set.",
    )
    llm_private_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Hosts of the operator's own, as host or host:port by commas, that organisations may set up as "
        "providers of language models though they are not on the public internet, also with http.",
    )
    llm_day_usd: Decimal = Field(
        default=Decimal(0),
        ge=0,
        description="Most US dollars an organisation may spend on language models in a day (UTC); 0: no limit. Its own "
        "budget can only be lower.",
    )
    llm_month_usd: Decimal = Field(
        default=Decimal(0), ge=0, description="Likewise in a calendar month (UTC); 0: no limit."
    )
    safety_keep_days: float = Field(
        default=365.0,
        gt=0,
        le=36_500,
        description="Days a decision of the safety passes is kept; one whose review is unfinished stays until it is.",
    )
    request_timeout_s: float = Field(
        default=600.0,
        gt=0,
        description="Longest that `/transcription/upload` waits for its transcript, a conversation of OpenAI's or "
        "Anthropic's clients for its answer (streamed: for the first piece of it), and that a gRPC call may take, "
        "seconds. Engines have limits of their own.",
    )

    @field_validator("models", mode="before")
    @classmethod
    def _parse_models(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.split("=", 1) for part in value.split(",") if part.strip()]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError("expected role=catalogue-id, separated by commas")
        return {role.strip(): model.strip() for role, model in pairs}

    @field_validator(*_LISTS, mode="before")
    @classmethod
    def _parse_names(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator(*_PATHS, mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().resolve()

    @field_validator("postgres_url", "postgres_app_url", mode="after")
    @classmethod
    def _libpq(cls, value: SecretStr | None) -> SecretStr | None:
        """A connection string as libpq reads it; SQLAlchemy's "+driver" and Heroku's postgres:// are accepted."""
        if value is None:
            return None
        import psycopg
        from psycopg.conninfo import conninfo_to_dict

        url = re.sub(r"^postgres(?:ql)?(?:\+\w+)?://", "postgresql://", value.get_secret_value().strip())
        try:
            conninfo_to_dict(url)
        except psycopg.Error:  # its text holds the password
            raise ValueError(
                "is no PostgreSQL connection string; expected postgresql://user:password@host:port/database,"
                " special characters of the password percent-encoded"
            ) from None
        return SecretStr(url)

    @field_validator("redis_url", mode="after")
    @classmethod
    def _redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        url = value.get_secret_value()
        try:
            parts = urlsplit(url)
            known = url.startswith(tuple(f"{scheme}://" for scheme in _REDIS_SCHEMES)) and parts.port != 0
        except ValueError:  # its text holds a part of the address
            known = False
        if not known:
            raise ValueError(f"expected scheme://host:port with a scheme of {', '.join(_REDIS_SCHEMES)}")
        return value

    @field_validator("jwt_secret", mode="after")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("must have at least 32 characters")
        return value

    @property
    def model_store(self) -> Path:
        """The folder of the weight files."""
        return self.models_dir or self.data_dir / "models"


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """The settings of this process's environment."""
    return Settings()
