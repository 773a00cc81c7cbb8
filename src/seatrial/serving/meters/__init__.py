"""Meters: what a server counts, times and writes down of itself."""
