"""Keyword search that may use its index, and how far embedding an organisation's memories anew is.

Row level security lets a condition reach an index only when its operator is marked leakproof, which only a superuser
can do and which PostgreSQL's array operators are not: `term_ids && …` and `facets @> …` would read every row of a
partition. So the two are asked in functions of the tables' owner, which repeat the policies themselves: they take the
organisation and the user from the transaction, never as an argument, and give back nothing but ids and scores.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ORG = "NULLIF(current_setting('app.current_org_id', true), '')::uuid"
PARAMETERS = """
    of_recording uuid, of_document uuid, of_type text, of_user uuid, since timestamptz, until timestamptz
"""
VISIBLE = """
        AND (m.visibility = 'organisation' OR m.user_id = me OR sees_all
            OR (m.visibility = 'division' AND m.division_id = division))
        AND (m.expires_at IS NULL OR m.expires_at > now())
        AND (of_recording IS NULL OR m.recording_id = of_recording)
        AND (of_document IS NULL OR m.document_id = of_document)
        AND (of_type IS NULL OR m.memory_type = of_type)
        AND (of_user IS NULL OR m.user_id = of_user)
        AND (since IS NULL OR m.occurred_at >= since)
        AND (until IS NULL OR m.occurred_at < until)
"""
# Their statements are planned once a connection, for any value: the settings keep such a plan from reading whole
# partitions, and the facets have a statement of their own, so that their index is used where they are asked for.
HEAD = f"""
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = public, pg_temp SET enable_seqscan = off SET jit = off AS $$
DECLARE
    org uuid := {ORG};
    me uuid := NULLIF(current_setting('app.current_user_id', true), '')::uuid;
    sees_all boolean := coalesce(current_setting('app.sees_all', true) = 'on', false);
    division uuid := (SELECT s.division_id FROM memberships s WHERE s.org_id = org AND s.user_id = me);
BEGIN
"""


def _ranked(facets: str) -> str:
    return f"""
        RETURN QUERY
        SELECT m.id, -(m.terms <#> weights) AS ranked FROM memories m
        WHERE m.org_id = org AND m.term_ids && essential {facets} {VISIBLE}
        ORDER BY ranked DESC, m.id LIMIT at_most;
    """


BY_WORDS = f"""
CREATE FUNCTION memories_by_words(
    weights sparsevec, essential integer[], wanted bigint[], at_most integer, {PARAMETERS}
) RETURNS TABLE (id uuid, score double precision) ROWS 50 {HEAD}
    IF cardinality(wanted) = 0 THEN {_ranked("")}
    ELSE {_ranked("AND m.facets @> wanted")}
    END IF;
END $$;
"""
BY_FACETS = f"""
CREATE FUNCTION memories_by_facets(wanted bigint[], at_most integer, {PARAMETERS}) RETURNS uuid[] {HEAD}
    RETURN (
        SELECT CASE WHEN count(*) <= at_most THEN coalesce(array_agg(f.id) FILTER (WHERE f.passes), '{{}}') END
        FROM (
            SELECT m.id, {VISIBLE.replace("AND", "", 1)} AS passes FROM memories m
            WHERE m.org_id = org AND m.facets @> wanted LIMIT at_most + 1
        ) f
    );
END $$;
"""
REBUILDS = f"""
CREATE TABLE rebuilds (
    org_id uuid PRIMARY KEY REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    model text NOT NULL,
    words boolean NOT NULL,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'failed')),
    stage text NOT NULL DEFAULT 'embedding',
    done bigint NOT NULL DEFAULT 0,
    total bigint NOT NULL DEFAULT 0,
    error text,
    requested_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
ALTER TABLE rebuilds ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON rebuilds USING (org_id = (SELECT {ORG})) WITH CHECK (org_id = (SELECT {ORG}));
GRANT SELECT, INSERT, UPDATE, DELETE ON rebuilds TO neuroedge_app;
"""
SIGNATURES = (
    "memories_by_words(sparsevec, integer[], bigint[], integer, uuid, uuid, text, uuid, timestamptz, timestamptz)",
    "memories_by_facets(bigint[], integer, uuid, uuid, text, uuid, timestamptz, timestamptz)",
)


def upgrade() -> None:
    """Make the functions and the table."""
    op.execute(REBUILDS)
    op.execute(BY_WORDS)
    op.execute(BY_FACETS)
    for signature in SIGNATURES:
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO neuroedge_app")


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP TABLE rebuilds")
    for signature in SIGNATURES:
        op.execute(f"DROP FUNCTION {signature}")
