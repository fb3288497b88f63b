-- KEYS: a sorted set. Returns how many members it has.
return redis.call('ZCARD', KEYS[1])
