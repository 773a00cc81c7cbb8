"""The mathematics, pure: numbers in, numbers out."""
