-- Counts a request that makes no record, in the bucket of `create.lua`.
-- KEYS: rate. ARGV: requests per minute (0: any), how many to count (0: only look).
-- Returns ms until there may be one more, with nothing counted, or 0.
local rate, counted = tonumber(ARGV[1]), tonumber(ARGV[2])
if rate == 0 then return 0 end
local now = clock()
local early, full_at = bucket(KEYS[1], rate, now)
if early then return early end
if counted > 0 then count_request(KEYS[1], full_at + (counted - 1) * 60000 / rate, now) end
return 0
