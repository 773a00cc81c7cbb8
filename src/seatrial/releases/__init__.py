"""Version to release: export with parity, manifest, signed bundle, runtime."""
