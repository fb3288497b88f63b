"""LiveKit's server API: the only calls, the only retry policy."""
