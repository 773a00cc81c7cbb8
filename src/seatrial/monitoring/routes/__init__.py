"""Routes: by which ways a message reaches people."""
