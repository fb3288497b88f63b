-- Takes the joined records whose agent has not renewed its lease, and pushes their lease on.
-- After a gap of more than GAP_MS between two looks, Redis or all sweepers were away, and perhaps
-- no agent could renew: every agent then has GRACE_MS to do so. Only once: for an agent that has
-- not renewed since, only the time beyond GAP_MS is left out. So a dead agent is found however long
-- the pauses between the looks are. Returns the dispatch ids.
local leases, looked_at = unpack(KEYS)
local limit, push_ms = ARGV[1], tonumber(ARGV[2])

local now = clock()
local last = tonumber(redis.call('GET', looked_at) or nil)
redis.call('SET', looked_at, string.format('%.0f', now))
local away_ms = last and now - last - GAP_MS or 0
if not last or away_ms > 0 then
  local grace_till = now + GRACE_MS
  local ending = redis.call('ZRANGEBYSCORE', leases, '-inf', string.format('%.0f', grace_till),
    'WITHSCORES')
  for i = 1, #ending, 2 do
    local id, till = ending[i], tonumber(ending[i + 1])
    local alive_till = redis.pcall('HGET', RECORD_PREFIX .. id, 'alive_till_ms')
    local had_it = type(alive_till) == 'string' and till > tonumber(alive_till)
    till = had_it and till + away_ms or grace_till
    redis.call('ZADD', leases, 'XX', string.format('%.0f', till), id)
  end
end
local ids = redis.call('ZRANGEBYSCORE', leases, '-inf', string.format('%.0f', now),
  'LIMIT', 0, limit)
local next_at = string.format('%.0f', now + push_ms)
for _, id in ipairs(ids) do
  redis.call('ZADD', leases, 'XX', next_at, id)
  -- A requested look stays due until a worker has looked (`looked.lua`).
  local look_at = redis.pcall('HGET', RECORD_PREFIX .. id, 'look_at_ms')
  if type(look_at) == 'string' then redis.call('HSET', RECORD_PREFIX .. id, 'look_at_ms', next_at) end
end
return ids
