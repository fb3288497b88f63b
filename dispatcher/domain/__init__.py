"""Values and pure decisions. No I/O, no Redis, no Celery."""
