"""Alembic's entry: runs the migrations on the connection `stores/schema.py` hands over."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transactional_ddl=True, version_table="schema_version")
with context.begin_transaction():
    context.run_migrations()
