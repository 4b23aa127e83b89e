"""Many memories of many tenants for benchmarks: made from real texts, loaded through the product's own schema.

Embedding a million texts would take an hour, and independent noise has no neighbours to find. So a few thousand real
texts (WordNet's glosses, a sample by hash) are embedded with the default encoder, and every row is a mixture: a random
gloss, moved by a random share (0 to 0.5) towards one of its 16 nearest neighbours, plus noise of the same covariance as
the glosses (a quarter of their spread), and normalised. Rows therefore lie where texts lie, in clusters of differing
density. A row's content is the gloss with four words of others, sealed and hashed as the product does. Queries are
glosses that were kept out. Rows are loaded by COPY as the owner, and the indexes built afterwards.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import numpy as np
import psycopg
from numpy.typing import NDArray

from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal
from neuroedge.contract.vault import Cipher
from neuroedge.runtimes.embedding.layout import EncoderOptions, Layout, batches
from neuroedge.runtimes.embedding.onnx import OnnxFile
from neuroedge.settings import load_settings
from neuroedge.stores import accounts, sealing
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database

MODEL: Final = "all-minilm-l6-v2-int8"
DIM: Final = 384
TENANTS: Final = 50
TEXTS: Final = 20_000
QUERIES: Final = 500
RARE_SHARE: Final = 0.01
"""Part of a tenant's rows that have the tag "rare", which the filtered searches ask for."""
_CHUNK: Final = 10_000
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """Real texts with their embeddings."""

    texts: list[str]
    vectors: Array
    questions: list[str]
    question_vectors: Array


def base(wordnet: Path, cache: Path) -> Base:
    """Glosses and their vectors; these from `cache` when they were made before."""
    known = sorted(set(glosses(wordnet)), key=lambda text: hashlib.sha256(text.encode()).digest())
    chosen = known[: TEXTS + QUERIES]
    path = cache / f"glosses-{MODEL}-{len(chosen)}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.save(path, embed(chosen))
    vectors = np.asarray(np.load(path), np.float32)
    return Base(
        texts=chosen[:TEXTS],
        vectors=vectors[:TEXTS],
        questions=chosen[TEXTS:],
        question_vectors=vectors[TEXTS:],
    )


def glosses(wordnet: Path) -> Iterator[str]:
    """Definitions without their examples (format: wndb(5WN))."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (wordnet / f"data.{part}").read_text().splitlines():
            if not line.startswith("  "):  # the licence
                yield line.partition(" | ")[2].partition('; "')[0].strip()


def embed(texts: Sequence[str]) -> Array:
    """With the default encoder, on two threads."""
    encoder = OnnxFile(MODEL, load_settings().model_store / MODEL, EncoderOptions(), device="cpu").open(
        Layout(backend="onnxruntime", workers=2, threads=1)
    )
    ids = encoder.tokenise(texts)
    made = np.empty((len(ids), encoder.dim), np.float32)

    def compute(batch: Sequence[int]) -> None:
        made[batch] = encoder.forward([ids[i] for i in batch])

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(compute, batches([len(sequence) for sequence in ids], token_budget=256)))
    encoder.close()
    return made


class Mixer:
    """Makes rows out of the base."""

    def __init__(self, of: Base) -> None:
        self._of = of
        self._near = np.empty((len(of.texts), 16), np.int32)
        for start in range(0, len(of.texts), 1000):
            similar = of.vectors[start : start + 1000] @ of.vectors.T
            self._near[start : start + 1000] = np.argpartition(-similar, 17, axis=1)[:, 1:17]
        centred = of.vectors - of.vectors.mean(axis=0)
        self._spread = np.linalg.cholesky(np.cov(centred.T) + 1e-9 * np.eye(DIM)).astype(np.float32)
        self._words = sorted({word for text in of.texts for word in text.split()})

    def vectors(self, count: int, rng: np.random.Generator) -> tuple[Array, NDArray[np.int64]]:
        """Rows [count, DIM] of length 1, and the gloss of each."""
        of = self._of
        gloss = rng.integers(len(of.texts), size=count)
        other = self._near[gloss, rng.integers(16, size=count)]
        share = rng.uniform(0, 0.5, size=(count, 1)).astype(np.float32)
        noise = rng.standard_normal((count, DIM), np.float32) @ self._spread.T
        mixed = (1 - share) * of.vectors[gloss] + share * of.vectors[other] + 0.25 * noise
        return mixed / np.linalg.norm(mixed, axis=1, keepdims=True), gloss

    def texts(self, gloss: NDArray[np.int64], rng: np.random.Generator) -> list[str]:
        """Contents of such rows."""
        more = rng.integers(len(self._words), size=(len(gloss), 4))
        return [f"{self._of.texts[g]} {' '.join(self._words[w] for w in m)}" for g, m in zip(gloss, more, strict=True)]


def sizes(rows: int) -> list[int]:
    """Rows of each tenant: the first has a tenth, the others share what is left."""
    first = rows // 10
    each = (rows - first) // (TENANTS - 1)
    return [first, *[each] * (TENANTS - 1)]


async def load(*, owner_url: str, db: Database, rows: int, of: Base) -> list[Principal]:
    """Tenants with their rows and all indexes; nothing is done to a database that has them. The first is the large one.

    Prints how long the steps take.
    """
    found = await _tenants(owner_url, db)
    with closing(psycopg.connect(owner_url, autocommit=True)) as owner:
        loaded = owner.execute("SELECT count(*) FROM corpus_stats").fetchone()
        if loaded == (TENANTS,):
            return found
        owner.execute("SET session_replication_role = replica")  # no foreign key is checked row by row
        owner.execute("SET maintenance_work_mem = '1GB'")
        indexes = _drop_indexes(owner)
        mixer, started = Mixer(of), time.perf_counter()
        for number, (principal, count) in enumerate(zip(found, sizes(rows), strict=True)):
            cipher = (await db.known(principal.org_id)).cipher
            _load_tenant(owner, principal, cipher, mixer, count=count, rng=np.random.default_rng(number))
        print(f"{rows} rows loaded in {time.perf_counter() - started:.0f} s", flush=True)
        for name, definition in indexes.items():
            started = time.perf_counter()
            owner.execute(definition)
            print(f"{name} built in {time.perf_counter() - started:.0f} s", flush=True)
        owner.execute("VACUUM ANALYZE")
    return found


async def _tenants(owner_url: str, db: Database) -> list[Principal]:
    found = []
    with closing(psycopg.connect(owner_url)) as owner:
        for number in range(TENANTS):
            name = f"bench-{number}"
            row = owner.execute(
                "SELECT u.id, m.org_id FROM users u JOIN memberships m ON m.user_id = u.id WHERE u.username = %s",
                [name],
            ).fetchone()
            if row is None:
                async with db.unbound() as conn:
                    login = await accounts.create_user_with_organisation(
                        conn,
                        username=name,
                        email=f"{name}@example.org",
                        password_hash="-",
                        organisation=name,
                        admin=False,
                    )
                row = (login.user_id, login.org_id)
            found.append(
                Principal(
                    user_id=UUID(str(row[0])),
                    org_id=UUID(str(row[1])),
                    username=name,
                    role="owner",
                    permissions=ROLE_PERMISSIONS["owner"],
                )
            )
    return found


def _drop_indexes(owner: psycopg.Connection[Any]) -> dict[str, str]:
    """Drop what slows a load down; by name, how to make it again."""
    rows = owner.execute(
        "SELECT c.relname, pg_get_indexdef(c.oid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " JOIN pg_class t ON t.oid = i.indrelid WHERE t.relname IN ('memories', 'memory_vectors_384')"
        " AND NOT i.indisprimary AND c.relkind = 'I'"
    ).fetchall()
    for name, _ in rows:
        owner.execute(f"DROP INDEX {name}")
    return {name: definition.replace(" ON ONLY ", " ON ") for name, definition in rows}


def _load_tenant(
    owner: psycopg.Connection[Any],
    principal: Principal,
    cipher: Cipher,
    mixer: Mixer,
    *,
    count: int,
    rng: np.random.Generator,
) -> None:
    documents, total = dict[int, int](), 0
    for start in range(0, count, _CHUNK):
        vectors, gloss = mixer.vectors(min(_CHUNK, count - start), rng)
        ids = [new_id() for _ in gloss]
        texts = mixer.texts(gloss, rng)
        words = sealing.Words.of(texts, cipher)
        with owner.cursor() as cursor:
            with cursor.copy(
                "COPY memories (org_id, id, user_id, memory_type, sealed, content_mac, facets, length, term_ids, terms)"
                " FROM STDIN"
            ) as copy:
                for row in _rows(principal, cipher, ids, texts, words, rng):
                    copy.write_row(row)
            with cursor.copy(
                "COPY memory_vectors_384 (org_id, memory_id, model, embedding) FROM STDIN WITH (FORMAT binary)"
            ) as copy:
                copy.write(_binary(principal.org_id, ids, vectors))
        total += words.total()
        for term, n in words.containing().items():
            documents[term] = documents.get(term, 0) + n
    owner.execute(
        "INSERT INTO corpus_stats (org_id, documents, words) VALUES (%s, %s, %s)",
        [
            principal.org_id,
            count,
            total,
        ],
    )
    with owner.cursor() as cursor, cursor.copy("COPY term_stats (org_id, term, documents) FROM STDIN") as copy:
        for term, n in documents.items():
            copy.write_row((principal.org_id, term, n))


def _rows(
    principal: Principal,
    cipher: Cipher,
    ids: Sequence[UUID],
    texts: Sequence[str],
    words: sealing.Words,
    rng: np.random.Generator,
) -> Iterator[tuple[Any, ...]]:
    rare = rng.random(len(ids)) < RARE_SHARE
    hashed = {False: sealing.facets(cipher, tags=["common"], metadata={}, source=None)}
    hashed[True] = sealing.facets(cipher, tags=["common", "rare"], metadata={}, source=None)
    said = {"title": None, "keywords": [], "metadata": {}, "source": None}
    weights = words.weights(average_length=words.average_length())
    for i, text, weight, is_rare in zip(ids, texts, weights, rare.tolist(), strict=True):
        tags = ["common", "rare"] if is_rare else ["common"]
        sealed = cipher.seal({**said, "content": text, "tags": tags}, sealing.memory(i))
        mac = sealing.content_mac(cipher, text)
        yield (
            *(principal.org_id, i, principal.user_id, "note", sealed, mac, hashed[is_rare]),
            *(weight.length, weight.term_ids, weight.text()),
        )


def _binary(org_id: UUID, ids: Sequence[UUID], vectors: Array) -> bytes:
    """PostgreSQL's binary COPY format of rows (org_id, id, MODEL, halfvec)."""
    name = MODEL.encode()
    rows = np.zeros(
        len(ids),
        dtype=[
            *(("fields", ">i2"), ("n0", ">i4"), ("org", "V16"), ("n1", ">i4"), ("id", "V16")),
            *(("n2", ">i4"), ("model", f"V{len(name)}"), ("n3", ">i4"), ("dim", ">u2"), ("unused", ">u2")),
            ("embedding", ">f2", (DIM,)),
        ],
    )
    rows["fields"], rows["n0"], rows["n1"], rows["n2"], rows["n3"] = 4, 16, 16, len(name), 4 + 2 * DIM
    rows["org"] = np.frombuffer(org_id.bytes, "V16")
    rows["id"] = np.frombuffer(b"".join(i.bytes for i in ids), "V16")
    rows["model"] = np.frombuffer(name, f"V{len(name)}")
    rows["dim"], rows["embedding"] = DIM, vectors
    return b"PGCOPY\n\xff\r\n\x00" + bytes(8) + rows.tobytes() + b"\xff\xff"
