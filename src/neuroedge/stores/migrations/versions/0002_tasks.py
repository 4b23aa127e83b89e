"""Engine calls as durable background tasks; row level security on them."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CURRENT_ORG = "NULLIF(current_setting('app.current_org_id', true), '')::uuid"

# Payload and result are JSON texts kept as bytes: jsonb would refuse zero characters and rewrite numbers.
TASKS = """
CREATE TABLE tasks (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    request_id text NOT NULL,
    engine text NOT NULL,
    payload bytea NOT NULL,
    priority text NOT NULL CHECK (priority IN ('low', 'normal', 'high')),
    max_attempts integer NOT NULL CHECK (max_attempts BETWEEN 1 AND 10),
    timeout_s double precision CHECK (timeout_s > 0),
    idempotency_key text,
    fingerprint bytea NOT NULL,
    state text NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'dead')),
    job_id bigint,
    attempts integer NOT NULL DEFAULT 0,
    errors integer NOT NULL DEFAULT 0,
    interrupted integer NOT NULL DEFAULT 0,
    stage text,
    fraction double precision,
    result bytea,
    result_blob text,
    error_code text,
    error_detail text,
    error_hint text,
    created_at timestamptz NOT NULL DEFAULT now(),
    next_run_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    PRIMARY KEY (org_id, id),
    CHECK ((state = 'queued') = (next_run_at IS NOT NULL)),
    CHECK ((state IN ('queued', 'running')) = (finished_at IS NULL))
);
CREATE UNIQUE INDEX tasks_idempotency ON tasks (org_id, user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX tasks_by_state ON tasks (org_id, state, id DESC);
CREATE INDEX tasks_by_engine ON tasks (org_id, engine, id DESC);
CREATE INDEX tasks_finished ON tasks (finished_at) WHERE finished_at IS NOT NULL;
"""

# The sweep's one look across tenants: which organisations have something to delete, nothing of what it is.
SWEEP = """
CREATE FUNCTION organisations_with_tasks_before(finished timestamptz)
RETURNS TABLE (org_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT DISTINCT t.org_id FROM tasks t WHERE t.finished_at < finished
$$;
REVOKE ALL ON FUNCTION organisations_with_tasks_before(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION organisations_with_tasks_before(timestamptz) TO neuroedge_app;
"""


def upgrade() -> None:
    """Add the table with its policy."""
    op.execute(TASKS)
    op.execute("ALTER TABLE tasks ENABLE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON tasks USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON tasks TO neuroedge_app")
    op.execute(SWEEP)


def downgrade() -> None:
    """Remove it; waiting tasks are lost with it."""
    op.execute("DROP FUNCTION organisations_with_tasks_before(timestamptz)")
    op.execute("DROP TABLE tasks")
