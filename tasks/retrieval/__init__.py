"""Retrieval: pairs of documents; the official pairs, and a stand-in from RFCs."""
