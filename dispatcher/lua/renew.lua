-- An agent in its session, or on its way there, says that it is alive, and how many people are with
-- it. (For one that cannot say so, the worker that has seen it does; it has no job id.)
-- KEYS: record, leases, live room. ARGV: id, generation, job id, people, lease_ms, abandon_after_ms,
--   deserted_after_ms, whether this agent has ever met a person (1), how long a caller who has asked
--   again counts as still to come (ms)
-- Returns "ok", "stale" (another job or generation serves this dispatch, or none, or its agent has been
-- told to be lost), "unknown" (no such record), "abandoned" (no person has ever come, and the time for
-- it is over), "deserted" (everybody has left, and did not come back in time) or "superseded" (it is
-- leaving, and another dispatch serves the room). People: -1 when the agent cannot see.
local record = redis.call('HMGET', KEYS[1], 'state', 'generation', 'job_id', 'person_seen',
  'alone_since_ms', 'loss', 'asked_at_ms', 'look_at_ms')
local state = record[1]
if not state then return 'unknown' end
local open = state == 'accepted' or state == 'joined' or state == 'leaving'
if not open or record[2] ~= ARGV[2] or (record[3] or '') ~= ARGV[3] or record[6] then
  return 'stale'
end
local now = clock()
local seen, alone_since = record[4], record[5]
local people = tonumber(ARGV[4])
-- It may have met them while it could not say so: Redis was away, or LiveKit was about to go.
local met = people > 0 or ARGV[8] == '1'
if met and not seen then
  redis.call('HSET', KEYS[1], 'person_seen', '1')
  seen = '1'
end
if state == 'leaving' then
  local serving = redis.call('GET', KEYS[3])
  if serving and serving ~= ARGV[1] then return 'superseded' end
end
if people ~= 0 then
  -- Where the agent was cut off, people have as long to come back as if they had left now.
  if alone_since then redis.call('HDEL', KEYS[1], 'alone_since_ms') end
elseif state ~= 'accepted' and not alone_since then
  redis.call('HSET', KEYS[1], 'alone_since_ms', string.format('%.0f', now))
elseif state ~= 'accepted' and now - tonumber(record[7] or '0') > tonumber(ARGV[9]) then
  local alone_ms = now - tonumber(alone_since)
  if not seen and alone_ms > tonumber(ARGV[6]) then return 'abandoned' end
  if seen and alone_ms > tonumber(ARGV[7]) then return 'deserted' end
end
local till = string.format('%.0f', now + tonumber(ARGV[5]))
redis.call('HSET', KEYS[1], 'alive_till_ms', till)
if state ~= 'accepted' then
  -- A look that was asked for (a foreign agent, a webhook) is not put off by an agent that lives.
  local look_at = tonumber(record[8] or nil)
  if look_at and look_at < tonumber(till) then till = record[8] end
  redis.call('ZADD', KEYS[2], till, ARGV[1])
end
return 'ok'
