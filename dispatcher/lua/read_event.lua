-- KEYS: event. Returns its fields.
return redis.call('HGETALL', KEYS[1])
