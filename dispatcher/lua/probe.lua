-- Writes a key, because a Redis that takes no writes answers questions still.
-- KEYS: probed. Answers with Redis's clock in ms.
local t = redis.call('TIME')
redis.call('SET', KEYS[1], t[1], 'PX', 60000)
return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
