-- KEYS: inflight, window. Returns {how many are on their way, how many may be or nothing}.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
return {redis.call('ZCOUNT', KEYS[1], '(' .. string.format('%.0f', now), '+inf'),
  redis.call('GET', KEYS[2])}
