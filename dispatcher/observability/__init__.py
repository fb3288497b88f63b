"""Logs, traces, signs of life."""
