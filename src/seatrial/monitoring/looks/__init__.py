"""Looks: one question about a window each, and its answer as plain values."""
