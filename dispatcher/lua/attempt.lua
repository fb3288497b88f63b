-- Counts an attempt to show a password before it is judged, so that many at once are not all judged;
-- a right one is given back.
-- KEYS: attempts from one address. ARGV: how many may be wrong, in how long (ms), "begin" or "right".
-- Returns ms to wait before another is judged, or 0.
local count = tonumber(redis.call('GET', KEYS[1]) or '0')
if ARGV[3] == 'right' then
  if count > 0 then redis.call('DECR', KEYS[1]) end
  return 0
end
if count >= tonumber(ARGV[1]) then return redis.call('PTTL', KEYS[1]) end
if redis.call('INCR', KEYS[1]) == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
