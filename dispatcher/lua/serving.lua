-- KEYS: live dispatch of a room. Returns its id, or an empty string.
return redis.call('GET', KEYS[1]) or ''
