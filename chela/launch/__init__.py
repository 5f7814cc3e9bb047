"""Commands: one run, a sweep of them, a search."""
