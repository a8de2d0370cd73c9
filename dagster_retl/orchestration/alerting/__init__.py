"""Alerts: what is wrong now, who has heard of it, and what is said to whom."""
