"""Release to traffic: which release answers which request."""
