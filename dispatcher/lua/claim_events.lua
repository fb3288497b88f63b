-- Takes due events of every client, so many each, and pushes their time on, so that nobody else
-- sends them meanwhile. KEYS: outboxes. ARGV: limit of each, push_ms. Returns event ids.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local later = string.format('%.0f', now + tonumber(ARGV[2]))
local claimed = {}
for _, outbox in ipairs(KEYS) do
  local ids = redis.call('ZRANGEBYSCORE', outbox, '-inf', string.format('%.0f', now),
    'LIMIT', 0, ARGV[1])
  for _, id in ipairs(ids) do
    redis.call('ZADD', outbox, later, id)
    claimed[#claimed + 1] = id
  end
end
return claimed
