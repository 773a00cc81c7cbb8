"""A project's folder: what it declares, its settings, and its stores, each opened when it is first needed."""
