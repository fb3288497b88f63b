"""How Redis is reached: its URL, Sentinel, TLS, and what it says when it refuses."""
