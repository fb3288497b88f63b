-- KEYS: event. Returns {the time (ms), its fields}.
return {clock(), redis.call('HGETALL', KEYS[1])}
