"""Alerting: which alarms ring, who is told, who is spared, and what happened around them."""
