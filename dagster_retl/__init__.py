"""Reverse ETL that is native to Dagster."""
