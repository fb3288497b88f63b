"""Usher's agent server: livekit-agents with a request filter that explains itself.

An existing livekit-agents program gets the same filter and reports from `request_filter`,
`session` and `reporting`.
"""
