"""What each verb of a project does: it reads records, calls the stages that do the work, and writes the next record."""
