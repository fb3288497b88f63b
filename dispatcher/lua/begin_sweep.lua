-- Notes that a sweep begins, unless another one has just begun: messages that nobody took pile up in
-- their queue, and one sweep does for all of them.
-- KEYS: parts at work. ARGV: the sweeper's name, its report (JSON), time to live (ms), how soon the next
-- one may follow (ms). Returns 1, or 0 when this one is too soon.
local now = clock()
local expires = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%d+) ')
local since = expires and now - (tonumber(expires) - tonumber(ARGV[3]))
if since and since >= 0 and since < tonumber(ARGV[4]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1],
  string.format('%.0f', now + tonumber(ARGV[3])) .. ' ' .. ARGV[2])
return 1
