-- KEYS: a set. Returns how many members it has.
return redis.call('SCARD', KEYS[1])
