"""Who did what, and what came from what: the audit log and lineage."""
