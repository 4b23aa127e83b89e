"""Organisations, accounts, recordings, memories, usage, audit, and the job queue; row level security on all of it."""

import procrastinate.schema
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

VECTOR_PARTITIONS = 8
TENANT_TABLES = (
    "divisions",
    "memberships",
    "refresh_tokens",
    "recordings",
    "recording_steps",
    "speakers",
    "segments",
    "memories",
    "usage",
    "audit",
)
CURRENT_ORG = "NULLIF(current_setting('app.current_org_id', true), '')::uuid"

ACCOUNTS = """
CREATE TABLE organisations (
    id uuid PRIMARY KEY,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE divisions (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
CREATE TABLE users (
    id uuid PRIMARY KEY,
    username text NOT NULL,
    email text NOT NULL,
    password_hash text NOT NULL,
    admin boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX users_username ON users (lower(username));
CREATE UNIQUE INDEX users_email ON users (lower(email));
CREATE TABLE memberships (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    division_id uuid,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, user_id),
    FOREIGN KEY (org_id, division_id) REFERENCES divisions (org_id, id)
);
CREATE INDEX memberships_user ON memberships (user_id);
CREATE TABLE refresh_tokens (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    family_id uuid NOT NULL,
    token_hash bytea NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
CREATE UNIQUE INDEX refresh_tokens_hash ON refresh_tokens (org_id, token_hash);
CREATE INDEX refresh_tokens_family ON refresh_tokens (org_id, family_id);
"""

RECORDINGS = """
CREATE TABLE recordings (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL REFERENCES users,
    title text NOT NULL,
    context text,
    filename text NOT NULL,
    language text,
    bytes bigint NOT NULL,
    status text NOT NULL CHECK (status IN ('queued', 'running', 'done', 'failed')),
    step text,
    attempts integer NOT NULL DEFAULT 0,
    errors integer NOT NULL DEFAULT 0,
    error_code text,
    error_detail text,
    error_hint text,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (org_id, id)
);
CREATE INDEX recordings_recent ON recordings (org_id, created_at DESC, id DESC);
CREATE TABLE recording_steps (
    org_id uuid NOT NULL,
    recording_id uuid NOT NULL,
    step text NOT NULL,
    output jsonb NOT NULL,
    seconds double precision NOT NULL,
    finished_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, recording_id, step),
    FOREIGN KEY (org_id, recording_id) REFERENCES recordings (org_id, id) ON DELETE CASCADE
);
CREATE TABLE speakers (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    recording_id uuid NOT NULL,
    label text NOT NULL,
    speech_s double precision NOT NULL,
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, recording_id, label),
    FOREIGN KEY (org_id, recording_id) REFERENCES recordings (org_id, id) ON DELETE CASCADE
);
CREATE TABLE segments (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    recording_id uuid NOT NULL,
    speaker_id uuid NOT NULL,
    position integer NOT NULL,
    start_s double precision NOT NULL,
    end_s double precision NOT NULL CHECK (end_s >= start_s),
    text text NOT NULL,
    confidence double precision NOT NULL,
    words jsonb NOT NULL,
    emotion jsonb,
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, recording_id, position),
    FOREIGN KEY (org_id, recording_id) REFERENCES recordings (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, speaker_id) REFERENCES speakers (org_id, id) ON DELETE CASCADE
);
CREATE INDEX segments_speaker ON segments (org_id, speaker_id);
"""

MEMORIES = """
CREATE TABLE memories (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    recording_id uuid,
    segment_id uuid,
    memory_type text NOT NULL,
    title text,
    content text NOT NULL,
    tags text[] NOT NULL DEFAULT '{}',
    keywords text[] NOT NULL DEFAULT '{}',
    metadata jsonb NOT NULL DEFAULT '{}',
    embedding_model text NOT NULL,
    embedding halfvec(384) NOT NULL,
    words tsvector GENERATED ALWAYS AS (to_tsvector('english', coalesce(title, '') || ' ' || content)) STORED,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, recording_id) REFERENCES recordings (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, segment_id) REFERENCES segments (org_id, id) ON DELETE CASCADE
) PARTITION BY HASH (org_id);
"""

MEMORY_INDEXES = """
CREATE INDEX memories_embedding ON memories USING hnsw (embedding halfvec_cosine_ops)
    WITH (m = 16, ef_construction = 64);
CREATE INDEX memories_words ON memories USING gin (words);
CREATE INDEX memories_recording ON memories (org_id, recording_id);
CREATE INDEX memories_segment ON memories (org_id, segment_id);
CREATE INDEX memories_recent ON memories (org_id, created_at DESC);
"""

LEDGERS = """
CREATE TABLE usage (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    request_id text NOT NULL,
    engine text NOT NULL,
    outcome text NOT NULL,
    seconds double precision NOT NULL,
    prompt_tokens integer NOT NULL DEFAULT 0,
    completion_tokens integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
CREATE INDEX usage_recent ON usage (org_id, created_at DESC);
CREATE TABLE audit (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid,
    request_id text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
CREATE INDEX audit_recent ON audit (org_id, created_at DESC);
"""

# The one door through which a row is seen before its tenant is known: by exact login name, at login.
LOGIN = """
CREATE FUNCTION find_login(login text)
RETURNS TABLE (user_id uuid, username text, password_hash text, admin boolean, org_id uuid, role text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT u.id, u.username, u.password_hash, u.admin, m.org_id, m.role
    FROM users u JOIN memberships m ON m.user_id = u.id
    WHERE lower(u.username) = lower(login) OR lower(u.email) = lower(login)
    ORDER BY m.created_at
    LIMIT 1
$$;
REVOKE ALL ON FUNCTION find_login(text) FROM PUBLIC;
"""


def _protect() -> None:
    for table in TENANT_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})"
        )
    # A partition reached by its own name does not inherit its parent's policies.
    for n in range(VECTOR_PARTITIONS):
        op.execute(f"ALTER TABLE memories_{n} ENABLE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON memories_{n} USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})"
        )
    op.execute("ALTER TABLE organisations ENABLE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON organisations USING (id = {CURRENT_ORG}) WITH CHECK (id = {CURRENT_ORG})")
    op.execute("ALTER TABLE users ENABLE ROW LEVEL SECURITY")
    member = f"EXISTS (SELECT 1 FROM memberships m WHERE m.user_id = users.id AND m.org_id = {CURRENT_ORG})"
    op.execute(f"CREATE POLICY colleague ON users FOR SELECT USING ({member})")
    op.execute(f"CREATE POLICY change ON users FOR UPDATE USING ({member}) WITH CHECK ({member})")
    op.execute(f"CREATE POLICY leave ON users FOR DELETE USING ({member})")
    # A user is inserted in the transaction that makes its first membership.
    op.execute("CREATE POLICY join_in ON users FOR INSERT WITH CHECK (true)")


def _grant() -> None:
    op.execute("GRANT USAGE ON SCHEMA public, queue TO neuroedge_app")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON organisations, users TO neuroedge_app")
    for table in TENANT_TABLES:
        allowed = "SELECT, INSERT" if table in ("audit", "usage") else "SELECT, INSERT, UPDATE, DELETE"
        op.execute(f"GRANT {allowed} ON {table} TO neuroedge_app")
    op.execute("GRANT EXECUTE ON FUNCTION find_login(text) TO neuroedge_app")
    op.execute("GRANT SELECT ON schema_version TO neuroedge_app")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA queue TO neuroedge_app")
    op.execute("GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA queue TO neuroedge_app")
    op.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA queue TO neuroedge_app")


def upgrade() -> None:
    """Build everything in one transaction."""
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.execute(ACCOUNTS)
    op.execute(RECORDINGS)
    op.execute(MEMORIES)
    for n in range(VECTOR_PARTITIONS):
        op.execute(
            f"CREATE TABLE memories_{n} PARTITION OF memories "
            f"FOR VALUES WITH (MODULUS {VECTOR_PARTITIONS}, REMAINDER {n})"
        )
    op.execute(MEMORY_INDEXES)
    op.execute(LEDGERS)
    op.execute(LOGIN)
    op.execute("CREATE SCHEMA queue")
    op.execute("SET LOCAL search_path = queue, public")
    # Straight to the driver: the queue's schema holds ':' and '%' that SQLAlchemy would read as parameters.
    op.get_bind().connection.cursor().execute(procrastinate.schema.SchemaManager.get_schema())
    op.execute("SET LOCAL search_path = public, queue")
    _protect()
    _grant()


def downgrade() -> None:
    """Remove everything the upgrade made."""
    op.execute("DROP SCHEMA queue CASCADE")
    op.execute("DROP FUNCTION find_login(text)")
    tables = ("organisations", "users", *TENANT_TABLES)
    op.execute(f"DROP TABLE {', '.join(tables)} CASCADE")
