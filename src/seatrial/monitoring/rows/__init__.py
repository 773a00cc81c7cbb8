"""Rows: the predictions and labels of a window, whatever served them, and what they are compared with."""
