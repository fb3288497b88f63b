-- Notes that a sweep begins, unless another one has just begun: unread messages pile up in their
-- queue, and one sweep serves all of them. Returns 1, or 0 when this one is too soon.
local alive = KEYS[1]
local sweeper, report, ttl_ms, pause_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local now = clock()
local expires = string.match(redis.call('HGET', alive, sweeper) or '', '^(%d+) ')
local since = expires and now - (tonumber(expires) - ttl_ms)
if since and since >= 0 and since < pause_ms then return 0 end
redis.call('HSET', alive, sweeper, string.format('%.0f', now + ttl_ms) .. ' ' .. report)
return 1
