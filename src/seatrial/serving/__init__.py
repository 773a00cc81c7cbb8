"""Request to prediction to log: the predictor and the HTTP service around it."""
