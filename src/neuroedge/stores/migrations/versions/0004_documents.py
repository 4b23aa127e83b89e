"""Documents, and which memories are their passages; row level security on them as on memories."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CURRENT_ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"
CURRENT_USER = "(SELECT NULLIF(current_setting('app.current_user_id', true), '')::uuid)"
SEES_ALL = "(SELECT current_setting('app.sees_all', true) = 'on')"

DOCUMENTS = """
CREATE TABLE documents (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    visibility text NOT NULL CHECK (visibility IN ('private', 'division', 'organisation')),
    division_id uuid,
    status text NOT NULL CHECK (status IN ('queued', 'running', 'done', 'failed')),
    sealed bytea NOT NULL,
    content_mac bigint NOT NULL,
    media_type text NOT NULL,
    bytes bigint NOT NULL,
    pages integer,
    chunks integer,
    version integer NOT NULL DEFAULT 1,
    staged integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    errors integer NOT NULL DEFAULT 0,
    error_code text,
    error_detail text,
    error_hint text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, division_id) REFERENCES divisions (org_id, id),
    CHECK ((visibility = 'division') = (division_id IS NOT NULL))
);
CREATE INDEX documents_by_content ON documents (org_id, content_mac);
CREATE INDEX documents_by_user ON documents (org_id, user_id);
ALTER TABLE memories ADD FOREIGN KEY (org_id, document_id) REFERENCES documents (org_id, id) ON DELETE CASCADE;
CREATE TABLE document_chunks (
    org_id uuid NOT NULL,
    document_id uuid NOT NULL,
    memory_id uuid NOT NULL,
    chunk_mac bigint NOT NULL,
    PRIMARY KEY (org_id, document_id, memory_id),
    FOREIGN KEY (org_id, document_id) REFERENCES documents (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, memory_id) REFERENCES memories (org_id, id) ON DELETE CASCADE
);
CREATE INDEX document_chunks_by_memory ON document_chunks (org_id, memory_id);
"""


def upgrade() -> None:
    """Add the tables with their policies."""
    mine = f"org_id = {CURRENT_ORG}"
    division = f"(SELECT division_id FROM memberships WHERE {mine} AND user_id = {CURRENT_USER})"
    visible = (
        f"{mine} AND (visibility = 'organisation' OR user_id = {CURRENT_USER} OR {SEES_ALL}"
        f" OR (visibility = 'division' AND division_id = {division}))"
    )
    op.execute(DOCUMENTS)
    for table, condition in {"documents": visible, "document_chunks": mine}.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING ({condition}) WITH CHECK ({mine})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO neuroedge_app")


def downgrade() -> None:
    """Remove them; the memories of documents go with them."""
    op.execute("DELETE FROM memories WHERE document_id IS NOT NULL")
    op.execute("DROP TABLE document_chunks")
    op.execute("ALTER TABLE memories DROP CONSTRAINT memories_org_id_document_id_fkey")
    op.execute("DROP TABLE documents")
