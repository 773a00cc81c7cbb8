"""log + labels -> report -> alert: is the model still right, and since when not?"""
