"""API keys: hashes, scopes and times; nothing of the key itself but the part it is looked up by."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

CURRENT_ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"

# A key goes with the membership it acts for.
TABLE = """
CREATE TABLE api_keys (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    prefix text NOT NULL CHECK (length(prefix) = 12),
    secret_hash bytea NOT NULL CHECK (length(secret_hash) = 32),
    scopes text[] NOT NULL,
    models text[],
    engines text[],
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, user_id) REFERENCES memberships (org_id, user_id) ON DELETE CASCADE
);
CREATE INDEX api_keys_prefix ON api_keys (prefix);
CREATE INDEX api_keys_user ON api_keys (org_id, user_id);
"""

# Who asks is known only once the key is found. Who knows a prefix learns a hash of 256 random bits by it, no more.
LOOKUP = """
CREATE FUNCTION find_api_key(wanted text)
RETURNS TABLE (
    org_id uuid, id uuid, user_id uuid, username text, role text, secret_hash bytea, scopes text[], models text[],
    engines text[], expires_at timestamptz, last_used_at timestamptz
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT k.org_id, k.id, k.user_id, u.username, m.role, k.secret_hash, k.scopes, k.models, k.engines, k.expires_at,
        k.last_used_at
    FROM api_keys k
    JOIN memberships m ON m.org_id = k.org_id AND m.user_id = k.user_id
    JOIN users u ON u.id = k.user_id
    JOIN organisations o ON o.id = k.org_id AND o.erased_at IS NULL
    WHERE k.prefix = wanted AND k.revoked_at IS NULL
    ORDER BY k.created_at
    LIMIT 1
$$;
REVOKE ALL ON FUNCTION find_api_key(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_api_key(text) TO neuroedge_app;
"""


def upgrade() -> None:
    """Add table, policy and function."""
    op.execute(TABLE)
    op.execute("ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON api_keys USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})")
    op.execute("GRANT SELECT, INSERT, DELETE ON api_keys TO neuroedge_app")
    op.execute("GRANT UPDATE (last_used_at, revoked_at) ON api_keys TO neuroedge_app")
    op.execute(LOOKUP)


def downgrade() -> None:
    """Remove them; every key ends."""
    op.execute("DROP FUNCTION find_api_key(text)")
    op.execute("DROP TABLE api_keys")
