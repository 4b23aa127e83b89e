"""Models that an organisation trained on its own tables."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

CURRENT_ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"

# Name and card (columns, classes, figures) are sealed, and the graph is a sealed object below trained_models/<id>:
# both tell of the rows a model was trained on. `user_id` is who trained it.
TABLE = """
CREATE TABLE trained_models (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    kind text NOT NULL,
    bytes bigint NOT NULL CHECK (bytes > 0),
    sha256 text NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
CREATE INDEX trained_models_of_user ON trained_models (org_id, user_id);
"""


def upgrade() -> None:
    """Add the table with its policy."""
    op.execute(TABLE)
    op.execute("ALTER TABLE trained_models ENABLE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant ON trained_models USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})"
    )
    op.execute("GRANT SELECT, INSERT, DELETE, UPDATE (sealed) ON trained_models TO neuroedge_app")


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP TABLE trained_models")
