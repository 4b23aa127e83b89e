"""Artifacts and their versions; who sees an artifact sees its versions. Versions are never changed: only the key they
are sealed with, and who made one, once that user's data is erased."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

CURRENT_ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"
CURRENT_USER = "(SELECT NULLIF(current_setting('app.current_user_id', true), '')::uuid)"
SEES_ALL = "(SELECT coalesce(current_setting('app.sees_all', true) = 'on', false))"

# `request` is what is being generated, sealed; it is there exactly while it is.
ARTIFACTS = """
CREATE TABLE artifacts (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    visibility text NOT NULL CHECK (visibility IN ('private', 'division', 'organisation')),
    division_id uuid,
    type text NOT NULL CHECK (type IN ('document', 'code', 'table', 'diagram', 'json', 'slides')),
    state text NOT NULL CHECK (state IN ('generating', 'ready', 'failed')),
    version integer NOT NULL DEFAULT 0 CHECK (version >= 0),
    sealed bytea NOT NULL,
    request bytea,
    session_id uuid,
    message_id uuid,
    memory_id uuid,
    attempts integer NOT NULL DEFAULT 0,
    errors integer NOT NULL DEFAULT 0,
    error_code text,
    error_detail text,
    error_hint text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, division_id) REFERENCES divisions (org_id, id),
    FOREIGN KEY (org_id, session_id) REFERENCES chat_sessions (org_id, id) ON DELETE SET NULL (session_id),
    FOREIGN KEY (org_id, message_id) REFERENCES chat_messages (org_id, id) ON DELETE SET NULL (message_id),
    FOREIGN KEY (org_id, memory_id) REFERENCES memories (org_id, id) ON DELETE SET NULL (memory_id),
    CHECK ((visibility = 'division') = (division_id IS NOT NULL)),
    CHECK ((state = 'generating') = (request IS NOT NULL)),
    CHECK (state <> 'ready' OR version > 0)
);
CREATE INDEX artifacts_by_user ON artifacts (org_id, user_id);
CREATE INDEX artifacts_by_session ON artifacts (org_id, session_id) WHERE session_id IS NOT NULL;
CREATE INDEX artifacts_by_message ON artifacts (org_id, message_id) WHERE message_id IS NOT NULL;
CREATE INDEX artifacts_by_memory ON artifacts (org_id, memory_id) WHERE memory_id IS NOT NULL;
CREATE TABLE artifact_versions (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    artifact_id uuid NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    author_id uuid,
    origin text NOT NULL CHECK (origin IN ('given', 'generated', 'restored')),
    bytes bigint NOT NULL,
    valid boolean NOT NULL,
    sealed bytea NOT NULL,
    blob text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, artifact_id, version),
    FOREIGN KEY (org_id, artifact_id) REFERENCES artifacts (org_id, id) ON DELETE CASCADE
);
"""


def upgrade() -> None:
    """Add the tables with their policies."""
    mine = f"org_id = {CURRENT_ORG}"
    division = f"(SELECT division_id FROM memberships WHERE {mine} AND user_id = {CURRENT_USER})"
    visible = (
        f"{mine} AND (visibility = 'organisation' OR user_id = {CURRENT_USER} OR {SEES_ALL}"
        f" OR (visibility = 'division' AND division_id = {division}))"
    )
    # The policy of artifacts holds within.
    seen = (
        f"{mine} AND EXISTS (SELECT 1 FROM artifacts a WHERE a.org_id = artifact_versions.org_id"
        " AND a.id = artifact_versions.artifact_id)"
    )
    op.execute(ARTIFACTS)
    for table, condition in {"artifacts": visible, "artifact_versions": seen}.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING ({condition}) WITH CHECK ({mine})")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON artifacts TO neuroedge_app")
    op.execute("GRANT SELECT, INSERT, DELETE, UPDATE (sealed, author_id) ON artifact_versions TO neuroedge_app")


def downgrade() -> None:
    """Remove them; what artifacts were found by goes with them."""
    op.execute("DELETE FROM memories m USING artifacts a WHERE a.org_id = m.org_id AND a.memory_id = m.id")
    op.execute("DROP TABLE artifact_versions, artifacts")
