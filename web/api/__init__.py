"""The views of the HTTP API, and LiveKit's webhooks."""
