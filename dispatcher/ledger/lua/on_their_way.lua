-- Returns {number of dispatches on their way, limit after drops or nothing}.
local inflight, window = unpack(KEYS)
local now = clock()
return {redis.call('ZCOUNT', inflight, '(' .. string.format('%.0f', now), '+inf'),
  window_of(window) or false}
