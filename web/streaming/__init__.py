"""Server-sent events, as generators in Flask responses."""
