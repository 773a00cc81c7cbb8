"""What the benchmarks of the feature store share: data, contestants, turns."""
