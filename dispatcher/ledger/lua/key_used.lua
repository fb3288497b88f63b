-- Notes when a key was last used.
local key_uses, key_id = KEYS[1], ARGV[1]
return redis.call('HSET', key_uses, key_id, string.format('%.0f', clock()))
