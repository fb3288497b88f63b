-- Notes when a key was last used. KEYS: key uses. ARGV: key id.
local t = redis.call('TIME')
return redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', tonumber(t[1]) * 1000))
