"""Bulk jobs: many engine calls ordered at once, each with an outcome of its own."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

CURRENT_ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"

# Payloads and outcomes (what an engine answered, or why it failed) are sealed; counts stand in the batch's row so that
# a look at its progress reads one row. An item without a state waits.
TABLES = """
CREATE TABLE batches (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    request_id text NOT NULL,
    priority text NOT NULL,
    state text NOT NULL CHECK (state IN ('queued', 'running', 'done', 'cancelled', 'failed')),
    idempotency_key text,
    fingerprint bytea NOT NULL,
    job_id bigint,
    total int NOT NULL CHECK (total > 0),
    succeeded int NOT NULL DEFAULT 0,
    failed int NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    PRIMARY KEY (org_id, id)
);
CREATE UNIQUE INDEX batches_of_key ON batches (org_id, user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX batches_finished ON batches (finished_at) WHERE finished_at IS NOT NULL;
CREATE TABLE batch_items (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    batch_id uuid NOT NULL,
    position int NOT NULL,
    engine text NOT NULL,
    starts int NOT NULL DEFAULT 0,
    state text CHECK (state IN ('succeeded', 'failed')),
    payload bytea NOT NULL,
    outcome bytea,
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, batch_id, position),
    FOREIGN KEY (org_id, batch_id) REFERENCES batches ON DELETE CASCADE
);
CREATE INDEX batch_items_waiting ON batch_items (org_id, batch_id, position) WHERE state IS NULL;
"""
SWEEP = """
CREATE FUNCTION organisations_with_batches_before(finished timestamptz)
RETURNS TABLE (org_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT DISTINCT b.org_id FROM batches b WHERE b.finished_at < finished
$$;
REVOKE ALL ON FUNCTION organisations_with_batches_before(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION organisations_with_batches_before(timestamptz) TO neuroedge_app;
"""


def upgrade() -> None:
    """Add the tables with their policies."""
    op.execute(TABLES)
    for table in ("batches", "batch_items"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})"
        )
    op.execute(
        "GRANT SELECT, INSERT, DELETE, UPDATE (state, job_id, succeeded, failed, started_at, finished_at)"
        " ON batches TO neuroedge_app"
    )
    op.execute("GRANT SELECT, INSERT, DELETE, UPDATE (starts, state, payload, outcome) ON batch_items TO neuroedge_app")
    op.execute(SWEEP)


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP FUNCTION organisations_with_batches_before(timestamptz)")
    op.execute("DROP TABLE batch_items, batches")
