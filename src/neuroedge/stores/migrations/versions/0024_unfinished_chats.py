"""An answer that was taken up again is as old as its last beginning: unfinished ones are told by `updated_at`."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def _by(column: str) -> None:
    """Let running messages be looked for by this time; the function keeps its owner and its grants."""
    op.execute("DROP INDEX chat_messages_running")
    op.execute(f"CREATE INDEX chat_messages_running ON chat_messages ({column}) WHERE state = 'running'")
    op.execute(f"""
CREATE OR REPLACE FUNCTION organisations_with_unfinished_chats(before timestamptz)
RETURNS TABLE (org_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT m.org_id FROM chat_messages m WHERE m.state = 'running' AND m.{column} < before
    UNION SELECT a.org_id FROM chat_attachments a WHERE a.state = 'storing' AND a.created_at < before
$$
""")


def upgrade() -> None:
    """By the last change."""
    _by("updated_at")


def downgrade() -> None:
    """By the beginning."""
    _by("created_at")
