"""Raw data to snapshot: sources, expectations, content-addressed snapshots."""
