-- KEYS: parked. Returns ids and reasons.
return redis.call('HGETALL', KEYS[1])
