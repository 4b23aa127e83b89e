"""Rounds of federated learning."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

CURRENT_ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"
_TABLES = ("federations", "federation_clients", "federation_rounds", "federation_messages")

# Federations belong to the organisation, not to a user. Names, keys, settings, results and small payloads are sealed;
# weights and updates are objects whose names stand in `sealed`. Ids of messages are made of round, client and kind, so
# that a message sent again meets its row. One round of a federation runs at a time.
TABLES = """
CREATE TABLE federations (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed')),
    version integer NOT NULL DEFAULT 0 CHECK (version >= 0),
    noisy_rounds integer NOT NULL DEFAULT 0 CHECK (noisy_rounds >= 0),
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz,
    PRIMARY KEY (org_id, id),
    CHECK ((state = 'closed') = (closed_at IS NOT NULL))
);
CREATE TABLE federation_clients (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    federation_id uuid NOT NULL,
    revoked boolean NOT NULL DEFAULT false,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, federation_id) REFERENCES federations ON DELETE CASCADE
);
CREATE INDEX federation_clients_of ON federation_clients (org_id, federation_id, id);
CREATE TABLE federation_rounds (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    federation_id uuid NOT NULL,
    number integer NOT NULL CHECK (number > 0),
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'collecting', 'aggregating', 'closed', 'failed')),
    phase text NOT NULL CHECK (phase IN ('update', 'keys', 'shares', 'masked', 'unmask')),
    deadline timestamptz NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, federation_id, number),
    FOREIGN KEY (org_id, federation_id) REFERENCES federations ON DELETE CASCADE,
    CHECK ((state IN ('closed', 'failed')) = (finished_at IS NOT NULL))
);
CREATE UNIQUE INDEX federation_rounds_running ON federation_rounds (org_id, federation_id) WHERE finished_at IS NULL;
CREATE TABLE federation_messages (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    round_id uuid NOT NULL,
    client_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('update', 'keys', 'shares', 'masked', 'unmask')),
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, round_id) REFERENCES federation_rounds ON DELETE CASCADE,
    FOREIGN KEY (org_id, client_id) REFERENCES federation_clients ON DELETE CASCADE
);
CREATE INDEX federation_messages_of ON federation_messages (org_id, round_id, kind, id);
CREATE INDEX federation_messages_by ON federation_messages (org_id, client_id);
"""


def upgrade() -> None:
    """Add the tables with their policies."""
    op.execute(TABLES)
    for table in _TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})"
        )
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON federations, federation_clients TO neuroedge_app")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON federation_rounds TO neuroedge_app")
    # What a client said never changes; what changes is the key it is sealed with.
    op.execute("GRANT SELECT, INSERT, DELETE, UPDATE (sealed) ON federation_messages TO neuroedge_app")


def downgrade() -> None:
    """Remove them; the sweep removes their objects."""
    op.execute("DROP TABLE federation_messages, federation_rounds, federation_clients, federations")
