-- Returns {how many are on their way, how many may be or nothing}.
local inflight, window = unpack(KEYS)
local now = clock()
return {redis.call('ZCOUNT', inflight, '(' .. string.format('%.0f', now), '+inf'),
  window_of(window) or false}
