-- Takes the joined records whose agent has not been heard of, and pushes their lease on.
-- KEYS: leases, time of the last look. ARGV: limit, push_ms, gap_ms, grace_ms, prefix of record keys.
-- When nobody has looked for longer than gap_ms, Redis or everybody who looks was away, and so
-- perhaps nobody could renew: every agent then has grace_ms to say that it is alive. Once: for one
-- that has not said so since, only the time beyond gap_ms does not count. So a dead one is found
-- whatever the pauses between the looks are. Returns the dispatch ids.
local now = clock()
local last = tonumber(redis.call('GET', KEYS[2]) or nil)
redis.call('SET', KEYS[2], string.format('%.0f', now))
local away_ms = last and now - last - tonumber(ARGV[3]) or 0
if not last or away_ms > 0 then
  local grace_till = now + tonumber(ARGV[4])
  local ending = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', grace_till),
    'WITHSCORES')
  for i = 1, #ending, 2 do
    local id, till = ending[i], tonumber(ending[i + 1])
    local alive_till = redis.pcall('HGET', ARGV[5] .. id, 'alive_till_ms')
    local had_it = type(alive_till) == 'string' and till > tonumber(alive_till)
    till = had_it and till + away_ms or grace_till
    redis.call('ZADD', KEYS[1], 'XX', string.format('%.0f', till), id)
  end
end
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now),
  'LIMIT', 0, ARGV[1])
local next_at = string.format('%.0f', now + tonumber(ARGV[2]))
for _, id in ipairs(ids) do
  redis.call('ZADD', KEYS[1], 'XX', next_at, id)
  -- Whoever has asked for a look asks on until somebody has looked (`looked.lua`).
  local look_at = redis.pcall('HGET', ARGV[5] .. id, 'look_at_ms')
  if type(look_at) == 'string' then redis.call('HSET', ARGV[5] .. id, 'look_at_ms', next_at) end
end
return ids
