"""Prepared data for a person: as a picture and as a table."""
