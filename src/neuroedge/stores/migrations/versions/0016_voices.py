"""Voices of enrolled people, their voiceprints, whom a recording's speakers are, and runs that label old recordings."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

CURRENT_ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"

# A voiceprint identifies a person: names, consent and vectors stand in `sealed` only. `user_id` is who enrolled the
# person. A speaker's `voice_id` has no foreign key: one that names no voice any more is how the sweep finds the
# memories that may still hold the name of someone whose voice was deleted.
TABLES = """
CREATE TABLE voices (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    external_mac bigint,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, id)
);
CREATE UNIQUE INDEX voices_external ON voices (org_id, external_mac) WHERE external_mac IS NOT NULL;
CREATE INDEX voices_of_user ON voices (org_id, user_id);
CREATE INDEX voices_expiring ON voices (expires_at);
CREATE TABLE voiceprints (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    voice_id uuid NOT NULL,
    model text NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, voice_id) REFERENCES voices ON DELETE CASCADE
);
CREATE INDEX voiceprints_of_voice ON voiceprints (org_id, voice_id);
CREATE TABLE voice_relabels (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    recording_id uuid,
    state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done', 'failed')),
    after uuid,
    total integer NOT NULL DEFAULT 0 CHECK (total >= 0),
    done integer NOT NULL DEFAULT 0 CHECK (done >= 0),
    labelled integer NOT NULL DEFAULT 0 CHECK (labelled >= 0),
    skipped integer NOT NULL DEFAULT 0 CHECK (skipped >= 0),
    starts integer NOT NULL DEFAULT 0,
    error_code text,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (org_id, id),
    CHECK ((state IN ('done', 'failed')) = (finished_at IS NOT NULL))
);
CREATE INDEX voice_relabels_of_user ON voice_relabels (org_id, user_id);
ALTER TABLE speakers ADD COLUMN voice_id uuid, ADD COLUMN voice_llr double precision;
CREATE INDEX speakers_voice ON speakers (org_id, voice_id) WHERE voice_id IS NOT NULL;
"""

# The sweep's one look across tenants: who has a voice whose time is over, or a speaker named by one that is gone.
SWEEP = """
CREATE FUNCTION organisations_with_stale_voices() RETURNS TABLE (org_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT v.org_id FROM voices v WHERE v.expires_at <= now()
    UNION
    SELECT s.org_id FROM speakers s WHERE s.voice_id IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM voices v WHERE v.org_id = s.org_id AND v.id = s.voice_id)
$$;
REVOKE ALL ON FUNCTION organisations_with_stale_voices() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION organisations_with_stale_voices() TO neuroedge_app;
"""


def upgrade() -> None:
    """Add tables and policies."""
    op.execute(TABLES)
    for table in ("voices", "voiceprints", "voice_relabels"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})"
        )
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON voices, voice_relabels TO neuroedge_app")
    # What a voiceprint is never changes; what changes is the key it is sealed with.
    op.execute("GRANT SELECT, INSERT, DELETE, UPDATE (sealed) ON voiceprints TO neuroedge_app")
    op.execute(SWEEP)


def downgrade() -> None:
    """Remove them; names that memories got from voices stay in them."""
    op.execute("DROP FUNCTION organisations_with_stale_voices()")
    op.execute("ALTER TABLE speakers DROP COLUMN voice_id, DROP COLUMN voice_llr")
    op.execute("DROP TABLE voice_relabels, voiceprints, voices")
