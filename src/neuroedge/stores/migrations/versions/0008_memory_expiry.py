"""Which organisations have memories whose time is over."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# The sweep's one look across tenants: which organisations have something to delete, nothing of what it is.
SWEEP = """
CREATE FUNCTION organisations_with_expired_memories()
RETURNS TABLE (org_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT o.id FROM organisations o WHERE EXISTS (
        SELECT 1 FROM memories m WHERE m.org_id = o.id AND m.expires_at <= now())
$$;
REVOKE ALL ON FUNCTION organisations_with_expired_memories() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION organisations_with_expired_memories() TO neuroedge_app;
"""


def upgrade() -> None:
    """Add the function."""
    op.execute(SWEEP)


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP FUNCTION organisations_with_expired_memories()")
