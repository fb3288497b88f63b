-- Counts a request that makes no record, in the client's bucket.
-- Returns ms until one more is allowed, with nothing counted, or 0.
local rate = KEYS[1]
local per_minute, counts = tonumber(ARGV[1]), ARGV[2] == '1'  -- 0: no limit; else it only looks

local now = clock()
local early, full_at = bucket(rate, per_minute, now)
if early then return early end
if counts then count_request(rate, full_at, now) end
return 0
