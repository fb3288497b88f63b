-- Counts a request that makes no record, in the bucket of `create.lua`.
-- KEYS: rate. ARGV: requests per minute (0: any), how many to count (0: only look).
-- Returns ms until there may be one more, with nothing counted, or 0.
local rate = tonumber(ARGV[1])
if rate == 0 then return 0 end
local now, step = clock(), 60000 / rate
local full_at = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0'))
local early = full_at + step - now - 60000
if early > 0.5 then return math.ceil(early) end
local counted = tonumber(ARGV[2])
if counted > 0 then
  full_at = full_at + step * counted
  redis.call('SET', KEYS[1], string.format('%.3f', full_at), 'PX', math.ceil(full_at - now))
end
return 0
