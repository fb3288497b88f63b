"""Server-sent events, as a generator of Flask's."""
