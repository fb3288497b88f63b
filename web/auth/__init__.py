"""Authentication: API keys, participant tokens, the operator's credential and session."""
