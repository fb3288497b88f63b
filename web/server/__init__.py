"""Additions to gunicorn beyond its settings: worker, log, error answers, time-outs."""
