-- Counts a request that makes no record, in the client's bucket.
-- KEYS: rate. ARGV: requests per minute (0: any), "1" to count it, "0" to look.
-- Returns ms until there may be one more, with nothing counted, or 0.
local now = clock()
local early, full_at = bucket(KEYS[1], tonumber(ARGV[1]), now)
if early then return early end
if ARGV[2] == '1' then count_request(KEYS[1], full_at, now) end
return 0
