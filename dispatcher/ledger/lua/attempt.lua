-- Counts an attempt to show a password before it is judged, which limits simultaneous attempts;
-- a right one is given back. Returns ms to wait before another is judged, or 0.
local attempts = KEYS[1]  -- from one address
local most, window_ms, what = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]  -- "begin" or "right"

local count = tonumber(redis.call('GET', attempts) or '0')
if what == 'right' then
  if count > 0 then redis.call('DECR', attempts) end
  return 0
end
-- Redis expires a key by its own clock: if that has gone back, the key would stay for longer.
if count == 0 or redis.call('PTTL', attempts) > window_ms then
  redis.call('SET', attempts, count, 'PX', window_ms)
end
if count >= most then return redis.call('PTTL', attempts) end
redis.call('INCR', attempts)
return 0
