-- KEYS: event. Returns {the time (ms), its fields}.
return {(read_clock()), redis.call('HGETALL', KEYS[1])}
