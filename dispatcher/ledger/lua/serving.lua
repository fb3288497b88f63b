-- Returns the id of the live dispatch of a room, or an empty string.
local live = KEYS[1]
return redis.call('GET', live) or ''
