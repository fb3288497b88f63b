-- KEYS: any key. Drops it.
return redis.call('DEL', KEYS[1])
