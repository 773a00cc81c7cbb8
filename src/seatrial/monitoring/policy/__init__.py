"""The policy: series of windows, when one of them has changed, and what that would have cost in false alarms."""
