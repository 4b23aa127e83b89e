"""Safety policies, their decisions, and the review queue."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

CURRENT_ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"

# A decision holds categories, numbers and places, no word of the text; it refers to no user's row, so that it outlives
# the account until the user's data are erased.
TABLES = """
CREATE TABLE safety_policies (
    org_id uuid PRIMARY KEY REFERENCES organisations ON DELETE CASCADE,
    policy jsonb NOT NULL,
    changed_by uuid NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE safety_decisions (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    request_id text NOT NULL,
    stage text NOT NULL CHECK (stage IN ('input', 'context', 'output')),
    action text NOT NULL CHECK (action IN ('flag', 'mask', 'block')),
    reasons jsonb NOT NULL,
    chars integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
CREATE INDEX safety_decisions_of_user ON safety_decisions (org_id, user_id);
CREATE TABLE reviews (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    source text NOT NULL CHECK (source IN ('rule', 'user')),
    kind text NOT NULL,
    ref text NOT NULL,
    decision_id uuid,
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'claimed', 'approved', 'corrected', 'rejected')),
    claimed_by uuid,
    claimed_until timestamptz,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (org_id, id),
    CHECK ((state = 'claimed') = (claimed_until IS NOT NULL)),
    CHECK ((state IN ('approved', 'corrected', 'rejected')) = (finished_at IS NOT NULL))
);
CREATE INDEX reviews_of_user ON reviews (org_id, user_id);
CREATE INDEX reviews_unfinished ON reviews (org_id, id) WHERE finished_at IS NULL;
CREATE TABLE review_steps (
    org_id uuid NOT NULL,
    review_id uuid NOT NULL,
    position integer NOT NULL,
    step text NOT NULL,
    by_user uuid NOT NULL,
    sealed bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, review_id, position),
    FOREIGN KEY (org_id, review_id) REFERENCES reviews ON DELETE CASCADE
);
"""


def upgrade() -> None:
    """Add tables and policies."""
    op.execute(TABLES)
    for table in ("safety_policies", "safety_decisions", "reviews", "review_steps"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})"
        )
    op.execute("GRANT SELECT, INSERT, UPDATE ON safety_policies TO neuroedge_app")
    op.execute("GRANT SELECT, INSERT, DELETE ON safety_decisions TO neuroedge_app")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON reviews TO neuroedge_app")
    op.execute("GRANT SELECT, INSERT, DELETE, UPDATE (sealed) ON review_steps TO neuroedge_app")


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP TABLE review_steps, reviews, safety_decisions, safety_policies")
