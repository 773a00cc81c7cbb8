"""Where bytes live: one file per technology."""
