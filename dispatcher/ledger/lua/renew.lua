-- Renews the lease of an agent that is in its session, or on its way there, and notes how many
-- people are with it. (For an agent that cannot report, the worker that has seen it renews, without
-- a job id.) Returns "ok", "stale" (another job or generation serves this dispatch, or none, or its
-- agent has been reported lost), "unknown" (no such record), "abandoned" (no person has ever come,
-- and the time for it is over), "deserted" (all people have left, and none came back in time) or
-- "superseded" (it is leaving, and another dispatch serves the room).
local record, leases, live = unpack(KEYS)
local id, generation, job_id = ARGV[1], ARGV[2], ARGV[3]
local people = tonumber(ARGV[4])  -- -1 when the agent cannot see
local abandon_after_ms, deserted_after_ms = tonumber(ARGV[5]), tonumber(ARGV[6])
local has_met = ARGV[7] == '1'    -- a person, at any time

local is = redis.call('HMGET', record, 'state', 'generation', 'job_id', 'person_seen',
  'alone_since_ms', 'loss', 'asked_at_ms', 'look_at_ms')
local state, seen, alone_since, loss = is[1], is[4], is[5], is[6]
local asked_at, look_at = is[7], is[8]
if not state then return 'unknown' end
local open = state == 'accepted' or state == 'joined' or state == 'leaving'
if not open or is[2] ~= generation or (is[3] or '') ~= job_id or loss then return 'stale' end
local now = clock()
-- The agent may have met people while it could not report: Redis was away, or LiveKit about to go.
if (people > 0 or has_met) and not seen then
  redis.call('HSET', record, 'person_seen', '1')
  seen = '1'
end
if state == 'leaving' then
  local serving = redis.call('GET', live)
  if serving and serving ~= id then return 'superseded' end
end
if people ~= 0 then
  -- If the agent was cut off, people have as long to come back as if they had left now.
  if alone_since then redis.call('HDEL', record, 'alone_since_ms') end
elseif state ~= 'accepted' and not alone_since then
  redis.call('HSET', record, 'alone_since_ms', string.format('%.0f', now))
elseif state ~= 'accepted' and now - tonumber(asked_at or '0') > STILL_TO_COME_MS then
  local alone_ms = now - tonumber(alone_since)
  if not seen and alone_ms > abandon_after_ms then return 'abandoned' end
  if seen and alone_ms > deserted_after_ms then return 'deserted' end
end
local till = string.format('%.0f', now + LEASE_MS)
redis.call('HSET', record, 'alive_till_ms', till)
if state ~= 'accepted' then
  -- A requested look (a foreign agent, a webhook) is not put off by a live agent.
  if look_at and tonumber(look_at) < tonumber(till) then till = look_at end
  redis.call('ZADD', leases, till, id)
end
return 'ok'
