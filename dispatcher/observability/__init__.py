"""Logs, traces, liveness."""
