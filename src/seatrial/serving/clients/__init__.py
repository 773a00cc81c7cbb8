"""Clients: what asks a server."""
