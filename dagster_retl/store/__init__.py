"""The store: the truth about leases, runs, what was sent and what failed; and the state beside it."""
