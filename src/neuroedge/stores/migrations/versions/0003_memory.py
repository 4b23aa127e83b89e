"""Content sealed under each organisation's own keys, words as keyed hashes, vectors of several sizes side by side.

What was stored in plain text before is sealed here, in the same transaction.
"""

from typing import Any

from alembic import context, op

from neuroedge.contract.vault import Cipher, Keys
from neuroedge.stores import sealing

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

PARTITIONS = 16
DIMENSIONS = (384, 768, 1024)
# In a subquery each setting is read once a statement, not once a row.
CURRENT_ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"
CURRENT_USER = "(SELECT NULLIF(current_setting('app.current_user_id', true), '')::uuid)"
SEES_ALL = "(SELECT current_setting('app.sees_all', true) = 'on')"

KEYS = """
CREATE TABLE tenant_keys (
    org_id uuid PRIMARY KEY REFERENCES organisations ON DELETE CASCADE,
    wrapped bytea NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE organisations ADD COLUMN embedding_model text;
"""

MEMORIES = """
ALTER TABLE memories RENAME TO memories_plain;
CREATE TABLE memories (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    recording_id uuid,
    segment_id uuid,
    document_id uuid,
    position integer,
    memory_type text NOT NULL,
    visibility text NOT NULL DEFAULT 'organisation' CHECK (visibility IN ('private', 'division', 'organisation')),
    division_id uuid,
    importance real NOT NULL DEFAULT 0.5 CHECK (importance BETWEEN 0 AND 1),
    occurred_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    sealed bytea NOT NULL,
    content_mac bigint NOT NULL,
    facets bigint[] NOT NULL DEFAULT '{}',
    length integer NOT NULL DEFAULT 0,
    term_ids integer[] NOT NULL DEFAULT '{}',
    terms sparsevec NOT NULL,
    CHECK ((visibility = 'division') = (division_id IS NOT NULL)),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, recording_id) REFERENCES recordings (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, segment_id) REFERENCES segments (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, division_id) REFERENCES divisions (org_id, id)
) PARTITION BY HASH (org_id);
CREATE TABLE term_stats (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    term integer NOT NULL,
    documents integer NOT NULL,
    PRIMARY KEY (org_id, term)
);
CREATE TABLE corpus_stats (
    org_id uuid PRIMARY KEY REFERENCES organisations ON DELETE CASCADE,
    documents bigint NOT NULL DEFAULT 0,
    words bigint NOT NULL DEFAULT 0
);
"""

INDEXES = """
CREATE INDEX memories_terms ON memories USING gin (term_ids);
CREATE INDEX memories_facets ON memories USING gin (facets);
CREATE INDEX memories_by_recording ON memories (org_id, recording_id) WHERE recording_id IS NOT NULL;
CREATE INDEX memories_by_segment ON memories (org_id, segment_id) WHERE segment_id IS NOT NULL;
CREATE INDEX memories_by_document ON memories (org_id, document_id, position) WHERE document_id IS NOT NULL;
CREATE INDEX memories_by_time ON memories (org_id, occurred_at DESC, id DESC);
CREATE INDEX memories_by_content ON memories (org_id, content_mac);
CREATE INDEX memories_expiring ON memories (org_id, expires_at) WHERE expires_at IS NOT NULL;
"""

# Rows also go by cascade (a recording, a document), which no statement of ours sees: hence a trigger. The row of
# corpus_stats is changed first by every writer and so keeps writers of one organisation from deadlocking.
FORGOTTEN = """
CREATE FUNCTION count_forgotten_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE corpus_stats c SET documents = c.documents - d.documents, words = c.words - d.words
    FROM (SELECT org_id, count(*) AS documents, sum(length) AS words FROM gone GROUP BY org_id) d
    WHERE c.org_id = d.org_id;
    UPDATE term_stats t SET documents = t.documents - d.documents
    FROM (SELECT org_id, term, count(*) AS documents FROM gone, unnest(term_ids) term GROUP BY org_id, term) d
    WHERE t.org_id = d.org_id AND t.term = d.term;
    RETURN NULL;
END $$;
CREATE TRIGGER memories_forgotten AFTER DELETE ON memories REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION count_forgotten_words();
"""

SEALED_ROWS = """
ALTER TABLE recordings ADD COLUMN sealed bytea;
ALTER TABLE segments ADD COLUMN sealed bytea;
ALTER TABLE recording_steps ADD COLUMN sealed bytea;
"""
SEALED_ONLY = """
ALTER TABLE recordings ALTER COLUMN sealed SET NOT NULL, DROP COLUMN title, DROP COLUMN context, DROP COLUMN filename;
ALTER TABLE segments ALTER COLUMN sealed SET NOT NULL, DROP COLUMN text, DROP COLUMN words, DROP COLUMN emotion;
ALTER TABLE recording_steps ALTER COLUMN sealed SET NOT NULL, DROP COLUMN output;
"""


def vectors(dim: int) -> str:
    """The table of embeddings of one size."""
    return f"""
CREATE TABLE memory_vectors_{dim} (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    memory_id uuid NOT NULL,
    model text NOT NULL,
    embedding halfvec({dim}) NOT NULL,
    PRIMARY KEY (org_id, memory_id, model),
    FOREIGN KEY (org_id, memory_id) REFERENCES memories (org_id, id) ON DELETE CASCADE
) PARTITION BY HASH (org_id);
"""


def _partition(table: str) -> None:
    for n in range(PARTITIONS):
        op.execute(
            f"CREATE TABLE {table}_p{n} PARTITION OF {table} FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {n})"
        )


def _protect(table: str, condition: str) -> None:
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON {table} USING ({condition}) WITH CHECK (org_id = {CURRENT_ORG})")


def _policies(partitioned: dict[str, str]) -> None:
    for table, condition in partitioned.items():
        _protect(table, condition)
        # A partition reached by its own name does not inherit its parent's policies.
        for n in range(PARTITIONS):
            _protect(f"{table}_p{n}", condition)


def upgrade() -> None:
    """Build, seal what was plain, drop the plain."""
    mine = f"org_id = {CURRENT_ORG}"
    division = f"(SELECT division_id FROM memberships WHERE {mine} AND user_id = {CURRENT_USER})"
    visible = (
        f"{mine} AND (visibility = 'organisation' OR user_id = {CURRENT_USER} OR {SEES_ALL}"
        f" OR (visibility = 'division' AND division_id = {division}))"
    )
    op.execute(KEYS)
    op.execute(MEMORIES)
    _partition("memories")
    for dim in DIMENSIONS:
        op.execute(vectors(dim))
        _partition(f"memory_vectors_{dim}")
        op.execute(
            f"CREATE INDEX memory_vectors_{dim}_hnsw ON memory_vectors_{dim} USING hnsw"
            " (embedding halfvec_cosine_ops) WITH (m = 16, ef_construction = 64)"
        )
    op.execute(INDEXES)
    op.execute(SEALED_ROWS)
    _seal_what_is_plain()
    op.execute(SEALED_ONLY)
    op.execute("DROP TABLE memories_plain")
    op.execute(FORGOTTEN)
    for table in ("tenant_keys", "term_stats", "corpus_stats"):
        _protect(table, mine)
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO neuroedge_app")
    _policies({"memories": visible, **{f"memory_vectors_{dim}": mine for dim in DIMENSIONS}})
    for table in ("memories", *(f"memory_vectors_{dim}" for dim in DIMENSIONS)):
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO neuroedge_app")


def _seal_what_is_plain() -> None:
    """Seal every row of every organisation; no row, no key needed."""
    conn: Any = op.get_bind().connection.driver_connection
    organisations = [row[0] for row in conn.execute("SELECT id FROM organisations").fetchall()]
    keys: Keys | None = context.config.attributes.get("keys")
    for org_id in organisations:
        if keys is None:
            raise RuntimeError("sealing what is stored needs the master key: run `neuroedge db upgrade`")
        place = f"tenant_keys/{org_id}"
        wrapped = keys.new(place)
        conn.execute("INSERT INTO tenant_keys (org_id, wrapped) VALUES (%s, %s)", [org_id, wrapped])
        cipher = keys.cipher(wrapped, place)
        _seal_recordings(conn, org_id, cipher)
        _seal_memories(conn, org_id, cipher)
        for row in conn.execute("SELECT id, payload, result FROM tasks WHERE org_id = %s", [org_id]).fetchall():
            payload, result = (
                None if part is None else cipher.seal(sealing.text(bytes(part)), sealing.task(row[0], name))
                for name, part in (("payload", row[1]), ("result", row[2]))
            )
            conn.execute(
                "UPDATE tasks SET payload = %s, result = %s WHERE org_id = %s AND id = %s",
                [payload, result, org_id, row[0]],
            )


def _seal_recordings(conn: Any, org_id: Any, cipher: Cipher) -> None:
    kept = (
        ("recordings", "id", ("title", "context", "filename"), sealing.recording),
        ("segments", "id", ("text", "words", "emotion"), sealing.segment),
    )
    for table, key, columns, place in kept:
        rows = conn.execute(f"SELECT {key}, {', '.join(columns)} FROM {table} WHERE org_id = %s", [org_id]).fetchall()
        for row in rows:
            sealed = cipher.seal(dict(zip(columns, row[1:], strict=True)), place(row[0]))
            conn.execute(f"UPDATE {table} SET sealed = %s WHERE org_id = %s AND {key} = %s", [sealed, org_id, row[0]])
    steps = conn.execute("SELECT recording_id, step, output FROM recording_steps WHERE org_id = %s", [org_id])
    for recording_id, step, output in steps.fetchall():
        conn.execute(
            "UPDATE recording_steps SET sealed = %s WHERE org_id = %s AND recording_id = %s AND step = %s",
            [cipher.seal(output, sealing.step(recording_id, step)), org_id, recording_id, step],
        )


def _seal_memories(conn: Any, org_id: Any, cipher: Cipher) -> None:
    columns = (
        "id, user_id, recording_id, segment_id, memory_type, created_at, title, content, tags, keywords, metadata,"
        " embedding_model, embedding::text"
    )
    rows = conn.execute(f"SELECT {columns} FROM memories_plain WHERE org_id = %s", [org_id]).fetchall()
    counted = sealing.Words.of([f"{row[6] or ''} {row[7]}" for row in rows], cipher)
    average = counted.average_length()
    for row, weights in zip(rows, counted.weights(average_length=average), strict=True):
        text = {"title": row[6], "content": row[7], "tags": row[8], "keywords": row[9], "metadata": row[10]}
        conn.execute(
            "INSERT INTO memories (org_id, id, user_id, recording_id, segment_id, memory_type, occurred_at, created_at,"
            " updated_at, sealed, content_mac, facets, length, term_ids, terms)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s::sparsevec)",
            [
                *(org_id, *row[:5], row[5], row[5], row[5]),
                cipher.seal({**text, "source": None}, sealing.memory(row[0])),
                sealing.content_mac(cipher, row[7]),
                sealing.facets(cipher, tags=row[8], metadata=row[10], source=None),
                weights.length,
                weights.term_ids,
                weights.text(),
            ],
        )
        conn.execute(
            "INSERT INTO memory_vectors_384 (org_id, memory_id, model, embedding) VALUES (%s, %s, %s, %s::halfvec)",
            [org_id, row[0], row[11], row[12]],
        )
    conn.execute(
        "INSERT INTO corpus_stats (org_id, documents, words) VALUES (%s, %s, %s)",
        [org_id, len(rows), counted.total()],
    )
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO term_stats (org_id, term, documents) VALUES (%s, %s, %s)",
            [(org_id, term, n) for term, n in sorted(counted.containing().items())],
        )


def downgrade() -> None:
    """Not possible: what is sealed is not written out in plain text again."""
    raise RuntimeError("restore a backup made before the upgrade")
