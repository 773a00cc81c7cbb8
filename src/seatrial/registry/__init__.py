"""Run to model version: versions, aliases and their history; the mirror to MLflow."""
