"""The REST API: a process of its own, which reaches Dagster over GraphQL."""
