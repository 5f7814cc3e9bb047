"""CHELA's mixer: ``mixer`` puts the parts together."""
