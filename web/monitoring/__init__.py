"""Health, metrics and traces of the web."""
