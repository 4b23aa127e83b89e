"""Learners: whom an organisation teaches, what they did, and whether that may be kept."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

CURRENT_ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"

# Ids are keyed hashes of the names that the organisation's applications use; the names themselves are sealed. A learner
# is no user: the rows belong to the organisation, and go with it or by the learner's own erasure.
TABLES = """
CREATE TABLE learners (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    consented boolean NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
CREATE TABLE learner_events (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    learner_id uuid NOT NULL,
    kind text NOT NULL,
    at timestamptz NOT NULL,
    content_mac bigint NOT NULL,
    sealed bytea NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, learner_id) REFERENCES learners ON DELETE CASCADE
);
CREATE INDEX learner_events_of_learner ON learner_events (org_id, learner_id, at, id);
"""


def upgrade() -> None:
    """Add the tables with their policies."""
    op.execute(TABLES)
    for table in ("learners", "learner_events"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})"
        )
    op.execute("GRANT SELECT, INSERT, DELETE, UPDATE (consented, sealed, updated_at) ON learners TO neuroedge_app")
    op.execute("GRANT SELECT, INSERT, DELETE, UPDATE (sealed) ON learner_events TO neuroedge_app")


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP TABLE learner_events, learners")
