-- KEYS: a queue of Celery's. Returns its length.
return redis.call('LLEN', KEYS[1])
