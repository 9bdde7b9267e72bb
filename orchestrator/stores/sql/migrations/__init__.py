"""The history of the schema, for Alembic. Scripts are frozen once released; a new one raises `tables.FORMAT`."""
