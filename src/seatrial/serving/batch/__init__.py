"""Batch: tables and files of any size, scored like served requests."""
