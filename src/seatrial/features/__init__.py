"""Snapshots to features: definitions, the point-in-time join, the online store's rows, look-up."""
