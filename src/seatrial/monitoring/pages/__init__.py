"""Pages: what people read of a report, a view or an incident, without a script."""
