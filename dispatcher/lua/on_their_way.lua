-- KEYS: inflight, window. Returns {how many are on their way, how many may be or nothing}.
local now = clock()
return {redis.call('ZCOUNT', KEYS[1], '(' .. string.format('%.0f', now), '+inf'),
  window_of(KEYS[2]) or false}
