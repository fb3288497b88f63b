"""What gunicorn is told beyond its settings."""
