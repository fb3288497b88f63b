-- An agent in its session says that it is alive, and how many people are with it. (For one that
-- cannot say so, whoever has seen it does; it has no job id.)
-- KEYS: record, leases. ARGV: id, generation, job id, people, lease_ms, abandon_after_ms,
--   deserted_after_ms, whether this agent has ever met a person (1)
-- Returns "ok", "stale" (another job or generation serves this dispatch, or none), "unknown" (no
-- such record), "abandoned" (nobody has ever come, and the time for it is over) or "deserted"
-- (everybody has left, and nobody has come back in time). People: -1 when the agent cannot see.
local record = redis.call('HMGET', KEYS[1], 'state', 'generation', 'job_id', 'person_seen',
  'alone_since_ms')
local state = record[1]
if not state then return 'unknown' end
if record[2] ~= ARGV[2] or (record[3] or '') ~= ARGV[3] or (state ~= 'accepted' and state ~= 'joined') then
  return 'stale'
end
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local seen, alone_since = record[4], record[5]
local people = tonumber(ARGV[4])
-- It may have met them while nobody could be told: Redis was away, or LiveKit was about to go.
local met = people > 0 or ARGV[8] == '1'
if met and not seen then
  redis.call('HSET', KEYS[1], 'person_seen', '1')
  seen = '1'
end
if people ~= 0 then
  -- Whoever was cut off gives people as long to come back as if they had left now.
  if alone_since then redis.call('HDEL', KEYS[1], 'alone_since_ms') end
elseif state == 'joined' and not alone_since then
  redis.call('HSET', KEYS[1], 'alone_since_ms', string.format('%.0f', now))
elseif state == 'joined' then
  local alone_ms = now - tonumber(alone_since)
  if not seen and alone_ms > tonumber(ARGV[6]) then return 'abandoned' end
  if seen and alone_ms > tonumber(ARGV[7]) then return 'deserted' end
end
local till = string.format('%.0f', now + tonumber(ARGV[5]))
redis.call('HSET', KEYS[1], 'alive_till_ms', till)
if state == 'joined' then redis.call('ZADD', KEYS[2], till, ARGV[1]) end
return 'ok'
