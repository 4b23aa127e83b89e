"""Switches of an organisation with their stated purpose, as a history; and its glossary for recordings."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"

# The newest row of a name is in force; older ones stay, so that it can be told who allowed what, when and why.
TABLES = """
CREATE TABLE switches (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    name text NOT NULL,
    allowed boolean NOT NULL,
    sealed bytea NOT NULL,
    changed_by uuid NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
CREATE INDEX switches_in_force ON switches (org_id, name, id DESC);
CREATE TABLE glossaries (
    org_id uuid PRIMARY KEY REFERENCES organisations ON DELETE CASCADE,
    sealed bytea NOT NULL,
    changed_by uuid NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);
"""


def upgrade() -> None:
    """Add the tables with their policies."""
    op.execute(TABLES)
    for table in ("switches", "glossaries"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING (org_id = {ORG}) WITH CHECK (org_id = {ORG})")
    # What was switched is never rewritten; only the key it is sealed with changes.
    op.execute("GRANT SELECT, INSERT, UPDATE (sealed) ON switches TO neuroedge_app")
    op.execute("GRANT SELECT, INSERT, UPDATE ON glossaries TO neuroedge_app")


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP TABLE glossaries, switches")
