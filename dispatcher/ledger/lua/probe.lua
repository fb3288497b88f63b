-- Writes a key, because a Redis that takes no writes still answers reads.
-- Returns Redis's clock in ms.
local probed = KEYS[1]
local t = redis.call('TIME')
redis.call('SET', probed, t[1], 'PX', 60000)
return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
