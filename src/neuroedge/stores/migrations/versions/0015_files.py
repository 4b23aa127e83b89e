"""Files that applications keep for later calls: a user's own, seen by nobody else."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"
ME = "(SELECT NULLIF(current_setting('app.current_user_id', true), '')::uuid)"
SEES_ALL = "(SELECT coalesce(current_setting('app.sees_all', true) = 'on', false))"

FILES = """
CREATE TABLE files (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    purpose text NOT NULL,
    bytes bigint NOT NULL CHECK (bytes > 0),
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    PRIMARY KEY (org_id, id)
);
CREATE INDEX files_by_user ON files (org_id, user_id, id);
CREATE INDEX files_expiring ON files (expires_at) WHERE expires_at IS NOT NULL;
"""

# The sweep's one look across tenants: which organisations have a file whose time is over.
SWEEP = """
CREATE FUNCTION organisations_with_expired_files() RETURNS TABLE (org_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT DISTINCT f.org_id FROM files f WHERE f.expires_at <= now()
$$;
REVOKE ALL ON FUNCTION organisations_with_expired_files() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION organisations_with_expired_files() TO neuroedge_app;
"""


def upgrade() -> None:
    """Add the table with its policy."""
    mine = f"org_id = {ORG} AND (user_id = {ME} OR {SEES_ALL})"
    op.execute(FILES)
    op.execute("ALTER TABLE files ENABLE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON files USING ({mine}) WITH CHECK ({mine})")
    # The content of a file never changes; what changes is the key it is sealed with.
    op.execute("GRANT SELECT, INSERT, DELETE, UPDATE (sealed) ON files TO neuroedge_app")
    op.execute(SWEEP)


def downgrade() -> None:
    """Remove them; the sweep removes their objects."""
    op.execute("DROP FUNCTION organisations_with_expired_files()")
    op.execute("DROP TABLE files")
