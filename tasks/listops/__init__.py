"""ListOps: nested expressions; official files or a generator of the same law."""
