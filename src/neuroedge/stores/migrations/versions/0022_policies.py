"""Recommenders: what a bandit has learned, and the choices it made."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

CURRENT_ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"

# Ids are keyed hashes of the names that the organisation's applications use; names, state and choices are sealed. They
# belong to the organisation, not to one user.
TABLES = """
CREATE TABLE recommenders (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    version bigint NOT NULL DEFAULT 0,
    choices bigint NOT NULL DEFAULT 0,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
CREATE TABLE recommender_choices (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    recommender_id uuid NOT NULL,
    number bigint NOT NULL,
    reward double precision,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, recommender_id) REFERENCES recommenders ON DELETE CASCADE
);
CREATE INDEX recommender_choices_by_number ON recommender_choices (org_id, recommender_id, number);
"""


def upgrade() -> None:
    """Add the tables with their policies."""
    op.execute(TABLES)
    for table in ("recommenders", "recommender_choices"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})"
        )
    op.execute(
        "GRANT SELECT, INSERT, DELETE, UPDATE (version, choices, sealed, updated_at) ON recommenders TO neuroedge_app"
    )
    op.execute("GRANT SELECT, INSERT, DELETE, UPDATE (reward, sealed) ON recommender_choices TO neuroedge_app")


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP TABLE recommender_choices, recommenders")
