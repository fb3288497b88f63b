"""State of one web process: accepted dispatches, limits, caches, uses of keys."""
