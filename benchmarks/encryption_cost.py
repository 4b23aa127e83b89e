"""What sealing content and hashing words costs a search.

    python -m benchmarks.encryption_cost --wordnet DIR --folder DIR

The same memories (benchmarks/vector_data.py) are stored for two organisations of one embedded database through the
product's own functions: one with the product's keys, one with a stand-in that seals nothing (content is plain JSON,
words are hashed without key). Both are searched in turn, one caller, the same queries, with and without embedding the
query.
"""

import argparse
import asyncio
import json
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import uvloop

from benchmarks import vector_data
from benchmarks.calling import percentile
from benchmarks.report import Figure, figure, save
from benchmarks.vector_data import MODEL, Base
from neuroedge.bootstrap import app_password, open_servers, open_vault
from neuroedge.contract.ports import NewMemory
from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal
from neuroedge.contract.vault import Cipher, Keys
from neuroedge.runtimes.embedding.layout import EncoderOptions, Layout
from neuroedge.runtimes.embedding.onnx import OnnxFile
from neuroedge.settings import Settings, load_settings
from neuroedge.stores import accounts, schema
from neuroedge.stores.postgres import Database
from neuroedge.stores.tenant_memories import TenantMemories

LIMIT: Final = 15
QUERIES: Final = 200
_AT_ONCE: Final = 500


class OpenCipher:
    """Seals nothing."""

    def seal(self, value: Any, context: str) -> bytes:
        """JSON."""
        return json.dumps(value, ensure_ascii=False).encode()

    def open(self, sealed: bytes, context: str) -> Any:
        """The value."""
        return json.loads(sealed)

    def blind(self, text: str) -> int:
        """A hash everybody can compute."""
        return zlib.crc32(text.encode())

    def seal_file(self, source: Path, target: Path, context: str) -> None:
        """Copied; no file is stored here."""
        target.write_bytes(source.read_bytes())

    def open_bytes(self, sealed: bytes, context: str) -> bytes:
        """As they are."""
        return sealed


class OpenKeys:
    """Keys of nothing."""

    def new(self, context: str) -> bytes:
        """No keys."""
        return b"none"

    def cipher(self, wrapped: bytes, context: str) -> Cipher:
        """Seals nothing."""
        return OpenCipher()

    def _same(self, wrapped: bytes, context: str) -> bytes:
        return wrapped

    add = promote = retire = rewrap = _same


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wordnet", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="keeps the texts' vectors between runs")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    of = vector_data.base(given.wordnet, given.folder)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        figures = uvloop.run(measure(Path(folder) / "data", of, rows=given.rows, rounds=given.rounds))
    save(
        "encryption_cost",
        figures,
        title=f"Encryption: search among {given.rows:,} memories, content sealed or not",
        command="python -m benchmarks.encryption_cost --wordnet DIR --folder DIR",
    )


async def measure(data_dir: Path, of: Base, *, rows: int, rounds: int) -> list[Figure]:
    """On and off in turn."""
    settings = Settings(data_dir=data_dir)
    encoder = OnnxFile(MODEL, load_settings().model_store / MODEL, EncoderOptions(), device="cpu").open(
        Layout(backend="onnxruntime", workers=1, threads=1)
    )
    taken: dict[str, list[float]] = {}
    async with open_servers(settings) as servers:
        vault = open_vault(settings, servers.secrets)
        password = app_password(settings, servers.secrets)
        schema.upgrade(servers.postgres_owner, app_password=password, keys=vault)
        kept: dict[str, Keys] = {"sealed": vault, "open": OpenKeys()}
        databases = {name: Database(servers.postgres_app, max_size=4, keys=keys) for name, keys in kept.items()}
        stores = {name: await _filled(db, name, of, rows=rows) for name, db in databases.items()}
        for turn in range(rounds + 1):
            for name, store in stores.items():
                bare, whole = list[float](), list[float]()
                for i in range(QUERIES):
                    started = time.perf_counter()
                    vector = (await asyncio.to_thread(encoder.forward, encoder.tokenise([of.questions[i]])))[0]
                    embedded = time.perf_counter()
                    await store.search(query=of.questions[i], vector=vector, model=MODEL, limit=LIMIT)
                    bare.append(1e3 * (time.perf_counter() - embedded))
                    whole.append(1e3 * (time.perf_counter() - started))
                if turn:  # the first is for warming up
                    taken.setdefault(name, []).append(percentile(bare, 0.5))
                    taken.setdefault(f"{name}, whole", []).append(percentile(whole, 0.5))
        for db in databases.values():
            await db.close()
    encoder.close()
    return [
        figure(
            "search with the query's embedding, sealed over open: p50",
            "×",
            _ratios(taken, ", whole"),
            at_most=1.15,
        ),
        figure("the database's part alone, sealed over open: p50", "×", _ratios(taken, "")),
        *(figure(f"{name}: p50", "ms", values, note=f"{LIMIT} candidates each") for name, values in taken.items()),
    ]


def _ratios(taken: dict[str, list[float]], part: str) -> list[float]:
    return [on / off for on, off in zip(taken[f"sealed{part}"], taken[f"open{part}"], strict=True)]


async def _filled(db: Database, name: str, of: Base, *, rows: int) -> TenantMemories:
    """An organisation with its memories."""
    await db.open()
    async with db.unbound() as conn:
        login = await accounts.create_user_with_organisation(
            conn, username=name, email=f"{name}@example.org", password_hash="-", organisation=name, admin=False
        )
    owner = Principal(
        user_id=login.user_id,
        org_id=login.org_id,
        username=name,
        role="owner",
        permissions=ROLE_PERMISSIONS["owner"],
    )
    store, rng, mixer = TenantMemories(db, owner), np.random.default_rng(1), vector_data.Mixer(of)
    for start in range(0, rows, _AT_ONCE):
        vectors, gloss = mixer.vectors(min(_AT_ONCE, rows - start), rng)
        await store.add(
            [
                NewMemory(content=text, embedding=vector, embedding_model=MODEL, tags=["bench"])
                for text, vector in zip(mixer.texts(gloss, rng), vectors, strict=True)
            ]
        )
    return store


if __name__ == "__main__":
    main()
