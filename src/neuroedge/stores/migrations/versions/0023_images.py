"""Images with the vectors they are compared by. The file itself is an object; what is said of it is sealed."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

CURRENT_ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"
CURRENT_USER = "(SELECT NULLIF(current_setting('app.current_user_id', true), '')::uuid)"
SEES_ALL = "(SELECT coalesce(current_setting('app.sees_all', true) = 'on', false))"

# `space` names the method and model of the vector; only vectors of one space have one length and can be compared.
IMAGES = """
CREATE TABLE images (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    visibility text NOT NULL CHECK (visibility IN ('private', 'division', 'organisation')),
    division_id uuid,
    media_type text NOT NULL,
    width_px integer NOT NULL CHECK (width_px > 0),
    height_px integer NOT NULL CHECK (height_px > 0),
    bytes bigint NOT NULL CHECK (bytes > 0),
    content_mac bigint NOT NULL,
    space text NOT NULL,
    embedding halfvec NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, user_id, content_mac),
    FOREIGN KEY (org_id, division_id) REFERENCES divisions (org_id, id),
    CHECK ((visibility = 'division') = (division_id IS NOT NULL))
);
CREATE INDEX images_by_space ON images (org_id, space);
"""


def upgrade() -> None:
    """Add the table with its policy."""
    mine = f"org_id = {CURRENT_ORG}"
    division = f"(SELECT division_id FROM memberships WHERE {mine} AND user_id = {CURRENT_USER})"
    visible = (
        f"{mine} AND (visibility = 'organisation' OR user_id = {CURRENT_USER} OR {SEES_ALL}"
        f" OR (visibility = 'division' AND division_id = {division}))"
    )
    op.execute(IMAGES)
    op.execute("ALTER TABLE images ENABLE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON images USING ({visible}) WITH CHECK ({mine})")
    op.execute("GRANT SELECT, INSERT, DELETE, UPDATE (space, embedding, sealed) ON images TO neuroedge_app")


def downgrade() -> None:
    """Remove them; the sweep removes their objects."""
    op.execute("DROP TABLE images")
