-- Returns the events that were given up, the latest first.
local dead = KEYS[1]
return redis.call('LRANGE', dead, 0, -1)
