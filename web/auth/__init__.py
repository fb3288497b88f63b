"""Who asks: API keys, and the operator."""
