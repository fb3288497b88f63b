"""Explain a record in words: causes, and what to do about them. Pure."""
