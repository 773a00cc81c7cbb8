"""The nouns that every part shares. Nothing here reads a file or opens a connection."""
