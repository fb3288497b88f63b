"""What one web process remembers."""
