"""What the serving benchmarks share: models and requests, the servers that answer them, load, and processes."""
