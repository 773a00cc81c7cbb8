"""Scoring: one release and its rows, from a request that was read to a score that may be answered."""
