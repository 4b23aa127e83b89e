"""The assistant's turns: which process answers which message, and the states its workflow saves (LangGraph)."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

CURRENT_ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"
CURRENT_USER = "(SELECT NULLIF(current_setting('app.current_user_id', true), '')::uuid)"
SEES_ALL = "(SELECT current_setting('app.sees_all', true) = 'on')"

# A turn goes with its session and its message, and its states go with the turn: nothing can be saved of a message that
# was deleted meanwhile. Writes may be saved before the state they follow, so they refer to the turn only.
TABLES = """
CREATE TABLE turns (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    session_id uuid NOT NULL,
    message_id uuid,
    worker uuid,
    seen_at timestamptz NOT NULL DEFAULT now(),
    cancelled boolean NOT NULL DEFAULT false,
    idempotency_key text,
    fingerprint bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, session_id) REFERENCES chat_sessions ON DELETE CASCADE,
    FOREIGN KEY (org_id, message_id) REFERENCES chat_messages ON DELETE CASCADE
);
CREATE UNIQUE INDEX turns_idempotency ON turns (org_id, user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX turns_session ON turns (org_id, session_id);
CREATE UNIQUE INDEX turns_message ON turns (org_id, message_id);
CREATE TABLE checkpoints (
    org_id uuid NOT NULL,
    thread_id uuid NOT NULL,
    checkpoint_id text NOT NULL,
    user_id uuid NOT NULL,
    parent_id text,
    sealed bytea NOT NULL,
    PRIMARY KEY (org_id, thread_id, checkpoint_id),
    FOREIGN KEY (org_id, thread_id) REFERENCES turns ON DELETE CASCADE
);
CREATE TABLE checkpoint_writes (
    org_id uuid NOT NULL,
    thread_id uuid NOT NULL,
    checkpoint_id text NOT NULL,
    task_id text NOT NULL,
    idx integer NOT NULL,
    user_id uuid NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (org_id, thread_id, checkpoint_id, task_id, idx),
    FOREIGN KEY (org_id, thread_id) REFERENCES turns ON DELETE CASCADE
);
"""


def upgrade() -> None:
    """Add the tables; a turn and its states are their user's alone."""
    op.execute(TABLES)
    own = f"org_id = {CURRENT_ORG} AND (user_id = {CURRENT_USER} OR {SEES_ALL})"
    for table in ("turns", "checkpoints", "checkpoint_writes"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING ({own}) WITH CHECK ({own})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO neuroedge_app")


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP TABLE checkpoint_writes, checkpoints, turns")
