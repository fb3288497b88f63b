"""Connections to Redis: its URL, Sentinel, TLS, and the errors with which it refuses."""
