"""The Celery worker process: its event loop and its periodic work."""
