-- Returns the length of a queue of Celery's.
local queue = KEYS[1]
return redis.call('LLEN', queue)
