"""The Dagster surface: syncs as assets, with schedules, checks, sensors and resources."""
