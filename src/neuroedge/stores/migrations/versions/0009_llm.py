"""Providers of language models, the ledger of their calls, what was spent, and budgets."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

CURRENT_ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"

PROVIDERS = """
CREATE TABLE llm_providers (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    name text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    settings jsonb NOT NULL,
    key_end text,
    sealed bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, name),
    CHECK ((sealed IS NULL) = (key_end IS NULL))
);
CREATE TABLE llm_preferences (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    default_model text,
    local_only boolean NOT NULL DEFAULT false,
    fallback text[] NOT NULL DEFAULT '{}',
    by_query_type jsonb NOT NULL DEFAULT '{}',
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id)
);
"""

# The prices a call was begun with stand in its row: what it cost can be computed again from the row alone.
LEDGER = """
CREATE TABLE llm_calls (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    request_id text NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    query_type text,
    private boolean NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'closed')),
    outcome text CHECK (outcome IN ('ok', 'cancelled', 'failed', 'lost')),
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    estimated boolean NOT NULL,
    prompt_usd_per_million numeric,
    completion_usd_per_million numeric,
    price_source text,
    price_date date,
    reserved_usd numeric NOT NULL,
    cost_usd numeric NOT NULL,
    seconds double precision,
    first_token_s double precision,
    error text,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    alive_until timestamptz,
    PRIMARY KEY (org_id, id),
    CHECK ((state = 'closed') = (outcome IS NOT NULL)),
    CHECK ((state = 'open') = (alive_until IS NOT NULL))
);
CREATE INDEX llm_calls_recent ON llm_calls (org_id, started_at DESC, id DESC);
CREATE INDEX llm_calls_open ON llm_calls (alive_until) WHERE state = 'open';
CREATE TABLE llm_totals (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    subject uuid NOT NULL,
    period text NOT NULL,
    cost_usd numeric NOT NULL,
    reserved_usd numeric NOT NULL,
    warned boolean NOT NULL DEFAULT false,
    PRIMARY KEY (org_id, subject, period)
);
CREATE TABLE llm_budgets (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    scope text NOT NULL CHECK (scope IN ('organisation', 'each_user', 'user')),
    member_id uuid,
    period text NOT NULL CHECK (period IN ('day', 'month')),
    soft_usd numeric CHECK (soft_usd >= 0),
    hard_usd numeric CHECK (hard_usd >= 0),
    PRIMARY KEY (org_id, id),
    UNIQUE NULLS NOT DISTINCT (org_id, scope, member_id, period),
    FOREIGN KEY (org_id, member_id) REFERENCES memberships (org_id, user_id) ON DELETE CASCADE,
    CHECK ((scope = 'user') = (member_id IS NOT NULL))
);
"""

# What changes totals holds the organisation's lock until it commits: each call is judged by what is spent and set aside
# at that moment, and no two transactions wait for each other's rows. The caller's rights apply.
WRITING = """
CREATE FUNCTION lock_llm_ledger(org uuid) RETURNS void LANGUAGE sql SET search_path = public, pg_temp AS $$
    SELECT pg_advisory_xact_lock(hashtextextended('llm/' || org::text, 0))
$$;
CREATE FUNCTION add_to_llm_totals(org uuid, who uuid, at timestamptz, cost numeric, reserved numeric) RETURNS void
LANGUAGE sql SET search_path = public, pg_temp AS $$
    INSERT INTO llm_totals AS t (org_id, subject, period, cost_usd, reserved_usd)
    SELECT org, s.subject, to_char(at AT TIME ZONE 'UTC', p.format), cost, reserved
    FROM (VALUES (org), (who)) AS s (subject), (VALUES ('YYYY-MM'), ('YYYY-MM-DD')) AS p (format)
    WHERE cost <> 0 OR reserved <> 0
    ON CONFLICT (org_id, subject, period) DO UPDATE
    SET cost_usd = t.cost_usd + EXCLUDED.cost_usd, reserved_usd = t.reserved_usd + EXCLUDED.reserved_usd
$$;
CREATE FUNCTION begin_llm_calls(org uuid, calls json, lease interval)
RETURNS TABLE (admitted boolean, org_day numeric, org_month numeric, user_day numeric, user_month numeric)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    c record;
    today text;
    this_month text;
BEGIN
    PERFORM lock_llm_ledger(org);
    FOR c IN SELECT * FROM json_to_recordset(calls) AS x (id uuid, user_id uuid, request_id text, provider text,
        model text, query_type text, private boolean, prompt_tokens bigint, prompt_usd_per_million numeric,
        completion_usd_per_million numeric, price_source text, price_date date, reserved_usd numeric,
        started_at timestamptz, limited boolean, most_org_day numeric, most_org_month numeric, most_user_day numeric,
        most_user_month numeric)
    LOOP
        admitted := true;
        IF c.limited THEN
            today := to_char(c.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD');
            this_month := to_char(c.started_at AT TIME ZONE 'UTC', 'YYYY-MM');
            SELECT coalesce(sum(t.cost_usd + t.reserved_usd) FILTER (WHERE t.subject = org AND t.period = today), 0),
                coalesce(sum(t.cost_usd + t.reserved_usd) FILTER (WHERE t.subject = org AND t.period <> today), 0),
                coalesce(sum(t.cost_usd + t.reserved_usd) FILTER (WHERE t.subject <> org AND t.period = today), 0),
                coalesce(sum(t.cost_usd + t.reserved_usd) FILTER (WHERE t.subject <> org AND t.period <> today), 0)
            INTO org_day, org_month, user_day, user_month
            FROM llm_totals t
            WHERE t.org_id = org AND t.subject IN (org, c.user_id) AND t.period IN (today, this_month);
            admitted := NOT (coalesce(org_day >= c.most_org_day, false)
                OR coalesce(org_month >= c.most_org_month, false)
                OR coalesce(user_day >= c.most_user_day, false)
                OR coalesce(user_month >= c.most_user_month, false));
        END IF;
        IF admitted THEN
            INSERT INTO llm_calls (org_id, id, user_id, request_id, provider, model, query_type, private, state,
                prompt_tokens, completion_tokens, cached_tokens, estimated, prompt_usd_per_million,
                completion_usd_per_million, price_source, price_date, reserved_usd, cost_usd, started_at, alive_until)
            VALUES (org, c.id, c.user_id, c.request_id, c.provider, c.model, c.query_type, c.private, 'open',
                c.prompt_tokens, 0, 0, true, c.prompt_usd_per_million, c.completion_usd_per_million, c.price_source,
                c.price_date, c.reserved_usd, 0, c.started_at, clock_timestamp() + lease)
            ON CONFLICT DO NOTHING;
            IF FOUND THEN
                PERFORM add_to_llm_totals(org, c.user_id, c.started_at, 0, c.reserved_usd);
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
CREATE FUNCTION end_llm_calls(org uuid, calls json) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    c llm_calls%ROWTYPE;
    was record;
    ended integer := 0;
BEGIN
    PERFORM lock_llm_ledger(org);
    FOR c IN SELECT * FROM json_populate_recordset(NULL::llm_calls, calls)
    LOOP
        SELECT k.state, k.outcome, k.cost_usd, k.reserved_usd INTO was
        FROM llm_calls k WHERE k.org_id = org AND k.id = c.id;
        CONTINUE WHEN was.state = 'closed' AND was.outcome <> 'lost';
        INSERT INTO llm_calls SELECT c.*
        ON CONFLICT (org_id, id) DO UPDATE
        SET state = EXCLUDED.state, outcome = EXCLUDED.outcome, prompt_tokens = EXCLUDED.prompt_tokens,
            completion_tokens = EXCLUDED.completion_tokens, cached_tokens = EXCLUDED.cached_tokens,
            estimated = EXCLUDED.estimated, reserved_usd = EXCLUDED.reserved_usd, cost_usd = EXCLUDED.cost_usd,
            seconds = EXCLUDED.seconds, first_token_s = EXCLUDED.first_token_s, error = EXCLUDED.error,
            ended_at = EXCLUDED.ended_at, alive_until = EXCLUDED.alive_until;
        PERFORM add_to_llm_totals(
            org, c.user_id, c.started_at, c.cost_usd - coalesce(was.cost_usd, 0), -coalesce(was.reserved_usd, 0));
        ended := ended + 1;
    END LOOP;
    RETURN ended;
END $$;
CREATE FUNCTION extend_llm_calls(org uuid, ids uuid[], lease interval) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM lock_llm_ledger(org);
    UPDATE llm_calls k SET alive_until = clock_timestamp() + lease
    WHERE k.org_id = org AND k.id = ANY(ids) AND k.state = 'open';
END $$;
CREATE FUNCTION lose_llm_calls(org uuid) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    c record;
    cost numeric;
    lost integer := 0;
BEGIN
    PERFORM lock_llm_ledger(org);
    FOR c IN SELECT * FROM llm_calls k
        WHERE k.org_id = org AND k.state = 'open' AND k.alive_until < clock_timestamp()
    LOOP
        cost := c.prompt_tokens * coalesce(c.prompt_usd_per_million, 0) / 1000000;
        UPDATE llm_calls k SET state = 'closed', outcome = 'lost', cost_usd = cost, reserved_usd = 0, ended_at = now(),
            alive_until = NULL
        WHERE k.org_id = org AND k.id = c.id;
        PERFORM add_to_llm_totals(org, c.user_id, c.started_at, cost, -c.reserved_usd);
        lost := lost + 1;
    END LOOP;
    RETURN lost;
END $$;
"""

# The sweep's one look across tenants: which organisations have calls that nobody keeps alive, nothing of what they are.
SWEEP = """
CREATE FUNCTION organisations_with_lost_llm_calls() RETURNS TABLE (org_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT DISTINCT k.org_id FROM llm_calls k WHERE k.state = 'open' AND k.alive_until < now()
$$;
REVOKE ALL ON FUNCTION organisations_with_lost_llm_calls() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION organisations_with_lost_llm_calls() TO neuroedge_app;
"""

# A ledger is a table whose rows the application may not delete: it stays when a user's data are erased, and goes with
# the organisation. Replaces what 0006 made, with the same rights.
ERASING = """
CREATE OR REPLACE FUNCTION rows_of_user(whose uuid) RETURNS TABLE (place text, row_count bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    org uuid := NULLIF(current_setting('app.current_org_id', true), '')::uuid;
BEGIN
    FOR place IN
        SELECT c.relname FROM pg_class c
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id'
            JOIN pg_attribute u ON u.attrelid = c.oid AND u.attname = 'user_id'
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
            AND has_table_privilege('neuroedge_app', c.oid, 'DELETE')
        ORDER BY c.relname
    LOOP
        EXECUTE format('SELECT count(*) FROM %I WHERE org_id = $1 AND user_id = $2', place)
            INTO row_count USING org, whose;
        RETURN NEXT;
    END LOOP;
    place := 'entities_without_mention';
    SELECT count(*) INTO row_count FROM entities e WHERE e.org_id = org
        AND NOT EXISTS (SELECT 1 FROM mentions m WHERE m.org_id = org AND m.entity_id = e.id);
    RETURN NEXT;
END $$;
CREATE OR REPLACE FUNCTION erase_ledgers(most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    org uuid := NULLIF(current_setting('app.current_org_id', true), '')::uuid;
    ledger text;
    gone bigint;
    total bigint := 0;
BEGIN
    PERFORM 1 FROM organisations WHERE id = org AND erased_at IS NOT NULL;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    FOREACH ledger IN ARRAY ARRAY['usage', 'audit', 'llm_calls'] LOOP
        EXECUTE format('DELETE FROM %1$I WHERE org_id = $1'
            ' AND id IN (SELECT u.id FROM %1$I u WHERE u.org_id = $1 LIMIT $2)', ledger) USING org, most;
        GET DIAGNOSTICS gone = ROW_COUNT;
        total := total + gone;
    END LOOP;
    RETURN total;
END $$;
"""

TABLES = {
    "llm_providers": "SELECT, INSERT, UPDATE, DELETE",
    "llm_preferences": "SELECT, INSERT, UPDATE",
    "llm_calls": "SELECT, INSERT, UPDATE",
    "llm_totals": "SELECT, INSERT, UPDATE",
    "llm_budgets": "SELECT, INSERT, UPDATE, DELETE",
}
FUNCTIONS = (
    "organisations_with_lost_llm_calls()",
    "lose_llm_calls(uuid)",
    "extend_llm_calls(uuid, uuid[], interval)",
    "end_llm_calls(uuid, json)",
    "begin_llm_calls(uuid, json, interval)",
    "add_to_llm_totals(uuid, uuid, timestamptz, numeric, numeric)",
    "lock_llm_ledger(uuid)",
)


def upgrade() -> None:
    """Add tables, policies and functions."""
    for statements in (PROVIDERS, LEDGER, WRITING, SWEEP, ERASING):
        op.execute(statements)
    for table, allowed in TABLES.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})"
        )
        op.execute(f"GRANT {allowed} ON {table} TO neuroedge_app")


def downgrade() -> None:
    """Remove them; the ledger is lost. What erasing does with ledgers stays as it is now, but for the calls."""
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")
    op.execute(f"DROP TABLE {', '.join(TABLES)}")
    op.execute(ERASING.replace(", 'llm_calls'", ""))
