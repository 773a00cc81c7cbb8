"""When things run: declared schedules, their instants, and one short-lived process for each run."""
