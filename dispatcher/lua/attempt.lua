-- Counts an attempt to show a password before it is judged, so that many at once are not all judged;
-- a right one is given back.
-- KEYS: attempts from one address. ARGV: how many may be wrong, in how long (ms), "begin" or "right".
-- Returns ms to wait before another is judged, or 0.
local count = tonumber(redis.call('GET', KEYS[1]) or '0')
if ARGV[3] == 'right' then
  if count > 0 then redis.call('DECR', KEYS[1]) end
  return 0
end
local most, window = tonumber(ARGV[1]), tonumber(ARGV[2])
-- Redis lets a key expire by its own clock: when that has gone back, it would stay for longer.
if count == 0 or redis.call('PTTL', KEYS[1]) > window then
  redis.call('SET', KEYS[1], count, 'PX', window)
end
if count >= most then return redis.call('PTTL', KEYS[1]) end
redis.call('INCR', KEYS[1])
return 0
