-- Takes the joined records whose agent has not been heard of, and pushes their lease on.
-- KEYS: leases, time of the last look. ARGV: limit, push_ms, gap_ms, grace_ms.
-- When nobody has looked for gap_ms, Redis or everybody who looks was away, and so perhaps nobody
-- could renew: every agent then gets grace_ms to say that it is alive. Returns the dispatch ids.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local last = redis.call('GET', KEYS[2])
redis.call('SET', KEYS[2], string.format('%.0f', now))
if not last or now - tonumber(last) > tonumber(ARGV[3]) then
  local before = string.format('%.0f', now + tonumber(ARGV[4]))
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', before)) do
    redis.call('ZADD', KEYS[1], 'XX', before, id)
  end
  return {}
end
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now),
  'LIMIT', 0, ARGV[1])
for _, id in ipairs(ids) do
  redis.call('ZADD', KEYS[1], 'XX', string.format('%.0f', now + tonumber(ARGV[2])), id)
end
return ids
