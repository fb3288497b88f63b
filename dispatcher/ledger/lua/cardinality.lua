-- Returns how many members a sorted set has.
local set = KEYS[1]
return redis.call('ZCARD', set)
