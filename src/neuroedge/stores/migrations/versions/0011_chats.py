"""Chat sessions, their messages, attachments and feedback.

A session is seen by its user, and by others when it is shared; changed by its user alone, so that what may be read and
what may be written are policies apart. What is found of messages are memories of a type of their own, which a search
sees only when it asks for that type: an assistant must not cite its own answers.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"
ME = "(SELECT NULLIF(current_setting('app.current_user_id', true), '')::uuid)"
SEES_ALL = "(SELECT coalesce(current_setting('app.sees_all', true) = 'on', false))"
MINE = f"org_id = {ORG} AND (user_id = {ME} OR {SEES_ALL})"
DIVISION = f"(SELECT s.division_id FROM memberships s WHERE s.org_id = {ORG} AND s.user_id = {ME})"

CHATS = """
CREATE TABLE chat_sessions (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    visibility text NOT NULL CHECK (visibility IN ('private', 'division', 'organisation')),
    division_id uuid,
    archived boolean NOT NULL DEFAULT false,
    leaf_id uuid,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, division_id) REFERENCES divisions (org_id, id),
    CHECK ((visibility = 'division') = (division_id IS NOT NULL))
);
CREATE INDEX chat_sessions_by_user ON chat_sessions (org_id, user_id, updated_at DESC, id DESC);
CREATE TABLE chat_messages (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    session_id uuid NOT NULL,
    user_id uuid NOT NULL,
    parent_id uuid,
    role text NOT NULL CHECK (role IN ('system', 'user', 'assistant', 'tool')),
    state text NOT NULL CHECK (state IN ('running', 'done', 'failed', 'cancelled')),
    rating text CHECK (rating IN ('up', 'down')),
    sealed bytea NOT NULL,
    feedback bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, session_id, id),
    FOREIGN KEY (org_id, session_id) REFERENCES chat_sessions (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, session_id, parent_id) REFERENCES chat_messages (org_id, session_id, id) ON DELETE CASCADE,
    CHECK ((rating IS NULL) = (feedback IS NULL))
);
CREATE INDEX chat_messages_by_parent ON chat_messages (org_id, session_id, parent_id, id);
CREATE INDEX chat_messages_by_user ON chat_messages (org_id, user_id);
CREATE INDEX chat_messages_running ON chat_messages (created_at) WHERE state = 'running';
CREATE TABLE chat_attachments (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    session_id uuid NOT NULL,
    user_id uuid NOT NULL,
    state text NOT NULL CHECK (state IN ('storing', 'queued', 'running', 'done', 'failed')),
    kind text NOT NULL CHECK (kind IN ('text', 'image', 'audio')),
    media_type text NOT NULL,
    bytes bigint NOT NULL,
    pages integer,
    characters integer,
    attempts integer NOT NULL DEFAULT 0,
    sealed bytea NOT NULL,
    text bytea,
    error_code text,
    error_detail text,
    error_hint text,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, session_id) REFERENCES chat_sessions (org_id, id) ON DELETE CASCADE
);
CREATE INDEX chat_attachments_by_session ON chat_attachments (org_id, session_id, id);
CREATE INDEX chat_attachments_by_user ON chat_attachments (org_id, user_id);
CREATE INDEX chat_attachments_storing ON chat_attachments (created_at) WHERE state = 'storing';
"""

# The sweep's one look across tenants: which organisations have something to end, nothing of what it is.
SWEEP = """
CREATE FUNCTION organisations_with_unfinished_chats(before timestamptz)
RETURNS TABLE (org_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT m.org_id FROM chat_messages m WHERE m.state = 'running' AND m.created_at < before
    UNION SELECT a.org_id FROM chat_attachments a WHERE a.state = 'storing' AND a.created_at < before
$$;
REVOKE ALL ON FUNCTION organisations_with_unfinished_chats(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION organisations_with_unfinished_chats(timestamptz) TO neuroedge_app;
"""

SEARCHES = (
    "memories_by_words(sparsevec, integer[], bigint[], integer, uuid, uuid, text, uuid, timestamptz, timestamptz)",
    "memories_by_facets(bigint[], integer, uuid, uuid, text, uuid, timestamptz, timestamptz)",
)
EVERY_TYPE = "(of_type IS NULL OR m.memory_type = of_type)"
BUT_MESSAGES = "(m.memory_type = of_type OR (of_type IS NULL AND m.memory_type <> ''chat_message''))"


def _exchange(old: str, new: str) -> None:
    """Change the one condition in both searches; all else stays as it was made."""
    for search in SEARCHES:
        op.execute(
            f"DO $do$ BEGIN EXECUTE replace(pg_get_functiondef('{search}'::regprocedure), '{old}', '{new}'); END $do$"
        )


def upgrade() -> None:
    """Add the tables with their policies."""
    shared = f"visibility = 'organisation' OR (visibility = 'division' AND division_id = {DIVISION})"
    op.execute(CHATS)
    readable = {"chat_sessions": f"org_id = {ORG} AND (user_id = {ME} OR {SEES_ALL} OR {shared})"}
    addable = {"chat_sessions": MINE}
    for table in ("chat_messages", "chat_attachments"):
        # The policy of sessions holds within: who sees a session sees what belongs to it.
        session = f"SELECT 1 FROM chat_sessions s WHERE s.org_id = {table}.org_id AND s.id = {table}.session_id"
        readable[table] = f"org_id = {ORG} AND (user_id = {ME} OR {SEES_ALL} OR EXISTS ({session}))"
        addable[table] = f"{MINE} AND EXISTS ({session} AND s.user_id = {table}.user_id)"
    for table, condition in readable.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY reading ON {table} FOR SELECT USING ({condition})")
        op.execute(f"CREATE POLICY adding ON {table} FOR INSERT WITH CHECK ({addable[table]})")
        op.execute(f"CREATE POLICY changing ON {table} FOR UPDATE USING ({MINE}) WITH CHECK ({MINE})")
        op.execute(f"CREATE POLICY deleting ON {table} FOR DELETE USING ({MINE})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO neuroedge_app")
    op.execute(SWEEP)
    _exchange(EVERY_TYPE, BUT_MESSAGES)


def downgrade() -> None:
    """Remove them; what messages were found by goes with them."""
    _exchange(BUT_MESSAGES, EVERY_TYPE)
    op.execute("DROP FUNCTION organisations_with_unfinished_chats(timestamptz)")
    op.execute("DELETE FROM memories WHERE memory_type = 'chat_message'")
    op.execute("DROP TABLE chat_attachments, chat_messages, chat_sessions")
