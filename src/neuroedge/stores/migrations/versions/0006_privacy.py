"""What rotating keys, exporting and erasing need to know; the few functions that look past one caller's rights."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# In a subquery the setting is read once a statement, not once a row.
CURRENT_ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"

ROTATION = """
ALTER TABLE tenant_keys
    ADD COLUMN rotation text CHECK (rotation IN ('requested', 'added', 'promoted')),
    ADD COLUMN resealed bigint NOT NULL DEFAULT 0,
    ADD COLUMN to_reseal bigint NOT NULL DEFAULT 0;
GRANT UPDATE (sealed) ON entities, mentions, relations TO neuroedge_app;
"""

# An erasure outlives the organisation it is of, so it refers to none; it holds ids and counts, no content.
PRIVACY = """
ALTER TABLE organisations ADD COLUMN erased_at timestamptz;
CREATE TABLE erasures (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    user_id uuid,
    account boolean NOT NULL,
    requested_by uuid NOT NULL,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done')),
    report jsonb,
    report_sha256 text,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (org_id, id),
    CHECK ((state = 'done') = (finished_at IS NOT NULL))
);
CREATE TABLE exports (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id uuid,
    requested_by uuid NOT NULL,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'failed')),
    counts jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (org_id, id)
);
"""

# Whoever still has an access token of an erased organisation gets no new keys for it.
NO_NEW_KEYS = """
CREATE FUNCTION no_keys_for_the_erased() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM organisations WHERE id = NEW.org_id AND erased_at IS NOT NULL) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER no_keys_for_the_erased BEFORE INSERT ON tenant_keys
    FOR EACH ROW EXECUTE FUNCTION no_keys_for_the_erased();
"""

# For the operator: which organisations have keys and where their rotation stands, never the keys; what was erased.
LOOKS_ACROSS = """
CREATE FUNCTION organisations_with_keys()
RETURNS TABLE (org_id uuid, rotation text, resealed bigint, to_reseal bigint, changed_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT k.org_id, k.rotation, k.resealed, k.to_reseal, k.changed_at FROM tenant_keys k ORDER BY k.org_id
$$;
CREATE FUNCTION erasures_of_all(most integer)
RETURNS TABLE (org_id uuid, id uuid, user_id uuid, account boolean, requested_by uuid, state text, report jsonb,
    report_sha256 text, created_at timestamptz, finished_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT e.org_id, e.id, e.user_id, e.account, e.requested_by, e.state, e.report, e.report_sha256, e.created_at,
        e.finished_at
    FROM erasures e ORDER BY e.created_at DESC LIMIT most
$$;
CREATE FUNCTION exports_made_before(finished timestamptz)
RETURNS TABLE (org_id uuid, id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT x.org_id, x.id FROM exports x WHERE x.created_at < finished
$$;
"""

# Within the bound organisation, for what the application's role may not do by itself: count rows that policies hide,
# tell whether a user belongs to another organisation too, whose account then stays; delete ledgers and all members, but
# only of an organisation that is being erased.
WITHIN_THE_ORGANISATION = """
CREATE FUNCTION rows_of_organisation() RETURNS TABLE (place text, row_count bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    org uuid := NULLIF(current_setting('app.current_org_id', true), '')::uuid;
BEGIN
    FOR place IN
        SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id'
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
            AND c.relname <> 'erasures'
        ORDER BY c.relname
    LOOP
        EXECUTE format('SELECT count(*) FROM %I WHERE org_id = $1', place) INTO row_count USING org;
        RETURN NEXT;
    END LOOP;
    place := 'organisations';
    SELECT count(*) INTO row_count FROM organisations WHERE id = org;
    RETURN NEXT;
END $$;
CREATE FUNCTION rows_of_user(whose uuid) RETURNS TABLE (place text, row_count bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    org uuid := NULLIF(current_setting('app.current_org_id', true), '')::uuid;
BEGIN
    FOR place IN
        SELECT c.relname FROM pg_class c
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id'
            JOIN pg_attribute u ON u.attrelid = c.oid AND u.attname = 'user_id'
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
            AND c.relname NOT IN ('erasures', 'usage', 'audit')
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
CREATE FUNCTION erase_ledgers(most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    org uuid := NULLIF(current_setting('app.current_org_id', true), '')::uuid;
    gone bigint;
    more bigint;
BEGIN
    PERFORM 1 FROM organisations WHERE id = org AND erased_at IS NOT NULL;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    DELETE FROM usage WHERE org_id = org AND id IN (SELECT u.id FROM usage u WHERE u.org_id = org LIMIT most);
    GET DIAGNOSTICS gone = ROW_COUNT;
    DELETE FROM audit WHERE org_id = org AND id IN (SELECT u.id FROM audit u WHERE u.org_id = org LIMIT most);
    GET DIAGNOSTICS more = ROW_COUNT;
    RETURN gone + more;
END $$;
CREATE FUNCTION erase_account(whose uuid) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    org uuid := NULLIF(current_setting('app.current_org_id', true), '')::uuid;
BEGIN
    DELETE FROM memberships WHERE org_id = org AND user_id = whose;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    DELETE FROM users u WHERE u.id = whose AND NOT EXISTS (SELECT 1 FROM memberships m WHERE m.user_id = u.id);
    RETURN 1;
END $$;
CREATE FUNCTION erase_members() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    org uuid := NULLIF(current_setting('app.current_org_id', true), '')::uuid;
    gone bigint;
BEGIN
    PERFORM 1 FROM organisations WHERE id = org AND erased_at IS NOT NULL;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    DELETE FROM users u WHERE EXISTS (SELECT 1 FROM memberships m WHERE m.org_id = org AND m.user_id = u.id)
        AND NOT EXISTS (SELECT 1 FROM memberships m WHERE m.org_id <> org AND m.user_id = u.id);
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;
"""

FUNCTIONS = (
    "organisations_with_keys()",
    "erasures_of_all(integer)",
    "exports_made_before(timestamptz)",
    "rows_of_organisation()",
    "rows_of_user(uuid)",
    "erase_ledgers(integer)",
    "erase_account(uuid)",
    "erase_members()",
)


def upgrade() -> None:
    """Add tables, policies and functions."""
    for statements in (ROTATION, PRIVACY, NO_NEW_KEYS, LOOKS_ACROSS, WITHIN_THE_ORGANISATION):
        op.execute(statements)
    for table, allowed in {"erasures": "SELECT, INSERT, UPDATE", "exports": "SELECT, INSERT, UPDATE, DELETE"}.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})"
        )
        op.execute(f"GRANT {allowed} ON {table} TO neuroedge_app")
    for function in FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO neuroedge_app")


def downgrade() -> None:
    """Remove them; proofs of erasure are lost with the table."""
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")
    op.execute("DROP TRIGGER no_keys_for_the_erased ON tenant_keys")
    op.execute("DROP FUNCTION no_keys_for_the_erased()")
    op.execute("DROP TABLE erasures, exports")
    op.execute("ALTER TABLE organisations DROP COLUMN erased_at")
    op.execute("REVOKE UPDATE (sealed) ON entities, mentions, relations FROM neuroedge_app")
    op.execute("ALTER TABLE tenant_keys DROP COLUMN rotation, DROP COLUMN resealed, DROP COLUMN to_reseal")
