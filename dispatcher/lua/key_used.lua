-- Notes when a key was last used. KEYS: key uses. ARGV: key id.
return redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', clock()))
