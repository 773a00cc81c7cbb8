"""Doors: by which protocols predictions are asked for."""
