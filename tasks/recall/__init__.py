"""Recall: what stood before, asked for again."""
