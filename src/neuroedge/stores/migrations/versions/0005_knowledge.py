"""The graph of named things: who is mentioned in which memory, and what a sentence says of two of them."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# In a subquery the setting is read once a statement, not once a row.
CURRENT_ORG = "(SELECT NULLIF(current_setting('app.current_org_id', true), '')::uuid)"
TABLES = ("knowledge_sources", "entities", "entity_words", "mentions", "relations")

# Ids of entities are made of the keyed hash of their name, so that writing one needs no look at what is there.
# Words of names have a table of their own: under row level security an index serves comparisons that leak nothing,
# as equality of numbers; those of arrays are not among them.
KNOWLEDGE = """
CREATE TABLE knowledge_sources (
    org_id uuid NOT NULL,
    memory_id uuid NOT NULL,
    extractor text NOT NULL,
    content_mac bigint NOT NULL,
    extracted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, memory_id),
    FOREIGN KEY (org_id, memory_id) REFERENCES memories (org_id, id) ON DELETE CASCADE
);
CREATE TABLE entities (
    org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
    id uuid NOT NULL,
    type text NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
CREATE TABLE entity_words (
    org_id uuid NOT NULL,
    word_key bigint NOT NULL,
    entity_id uuid NOT NULL,
    PRIMARY KEY (org_id, word_key, entity_id),
    FOREIGN KEY (org_id, entity_id) REFERENCES entities (org_id, id) ON DELETE CASCADE
);
CREATE INDEX entity_words_entity ON entity_words (org_id, entity_id);
CREATE TABLE mentions (
    org_id uuid NOT NULL,
    entity_id uuid NOT NULL,
    memory_id uuid NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (org_id, entity_id, memory_id),
    FOREIGN KEY (org_id, entity_id) REFERENCES entities (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, memory_id) REFERENCES knowledge_sources (org_id, memory_id) ON DELETE CASCADE
);
CREATE INDEX mentions_memory ON mentions (org_id, memory_id);
CREATE TABLE relations (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    subject_id uuid NOT NULL,
    object_id uuid NOT NULL,
    predicate_key bigint NOT NULL,
    memory_id uuid NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, subject_id) REFERENCES entities (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, object_id) REFERENCES entities (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, memory_id) REFERENCES knowledge_sources (org_id, memory_id) ON DELETE CASCADE
);
CREATE INDEX relations_subject ON relations (org_id, subject_id);
CREATE INDEX relations_object ON relations (org_id, object_id);
CREATE INDEX relations_memory ON relations (org_id, memory_id);
"""

# Runs as the owner: a mention in a memory that the deleting user may not see keeps an entity as any other does. The
# lock keeps a writer from mentioning an entity that is about to go; writers take the same one.
ORPHANS = """
CREATE FUNCTION lock_knowledge(org uuid) RETURNS void
LANGUAGE sql SET search_path = public, pg_temp AS $$
    SELECT pg_advisory_xact_lock(hashtextextended('knowledge/' || org::text, 0))
$$;
CREATE FUNCTION remove_entities_without_mention() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM lock_knowledge(org_id) FROM (SELECT DISTINCT org_id FROM gone) AS o;
    DELETE FROM entities e USING gone g
    WHERE e.org_id = g.org_id AND e.id = g.entity_id
        AND NOT EXISTS (SELECT 1 FROM mentions m WHERE m.org_id = e.org_id AND m.entity_id = e.id);
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION remove_entities_without_mention() FROM PUBLIC;
CREATE TRIGGER remove_entities_without_mention AFTER DELETE ON mentions
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION remove_entities_without_mention();
"""

# What was read in a memory is seen by those who may see the memory: the inner SELECT is under its policies.
IN_A_VISIBLE_MEMORY = (
    "EXISTS (SELECT 1 FROM memories WHERE memories.org_id = {table}.org_id AND memories.id = {table}.memory_id)"
)
MENTIONED_VISIBLY = (
    "EXISTS (SELECT 1 FROM mentions WHERE mentions.org_id = {table}.org_id AND mentions.entity_id = {table}.{id})"
)


def upgrade() -> None:
    """Add the tables with their policies."""
    op.execute(KNOWLEDGE)
    op.execute(ORPHANS)
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})"
        )
        op.execute(f"GRANT SELECT, INSERT, DELETE ON {table} TO neuroedge_app")
    for table in ("knowledge_sources", "mentions", "relations"):
        seen = IN_A_VISIBLE_MEMORY.format(table=table)
        op.execute(f"CREATE POLICY visible ON {table} AS RESTRICTIVE USING ({seen}) WITH CHECK ({seen})")
    for table, column in (("entities", "id"), ("entity_words", "entity_id")):
        seen = MENTIONED_VISIBLY.format(table=table, id=column)
        op.execute(f"CREATE POLICY visible ON {table} AS RESTRICTIVE FOR SELECT USING ({seen})")
        op.execute(f"CREATE POLICY unmentioned ON {table} AS RESTRICTIVE FOR DELETE USING (false)")


def downgrade() -> None:
    """Remove them."""
    op.execute(f"DROP TABLE {', '.join(TABLES)} CASCADE")
    op.execute("DROP FUNCTION remove_entities_without_mention()")
    op.execute("DROP FUNCTION lock_knowledge(uuid)")
