"""Alembic's scripts. Within a minor series they only add, so that older processes go on."""
