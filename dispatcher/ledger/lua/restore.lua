-- Writes a record that Redis does not have, from the memory of a web process that accepted it or of
-- an agent that serves it. When another dispatch serves that room by now, the record is written as
-- cancelled, so that a reader learns why.
-- Returns "restored", "exists" or "occupied".
local record, timeline, due, live, metrics, index, sessions, notified, outbox = unpack(KEYS)
local id, state, generation, age_ms, deadline_ms, detail, closed_reason, closed_message,
  retention_s, client_id, by_web = unpack(ARGV, 1, 11)
-- by_web: "1" by the word of the web, which has seen a key of that client's; else an agent says so
local FIELDS = 12  -- field, value, field, value, ... from here on

local whose = redis.call('HGET', record, 'client_id')
if whose and by_web == '1' and whose ~= client_id then
  -- An agent of another client's has claimed that id, which is no secret.
  redis.call('DEL', record, record .. ':attempts', timeline)
elseif redis.call('EXISTS', record) == 1 then
  return 'exists'
end
local now = clock()
local now_s = string.format('%.0f', now)
local other = redis.call('GET', live)
local occupied = other and other ~= id
local event = 'restored'
if occupied then state, event = 'cancelled', 'superseded' end
local requested = string.format('%.0f', now - tonumber(age_ms))
redis.call('HSET', record, 'state', state, 'generation', generation,
  'created_at_ms', requested, 'requested_at_ms', requested, 'updated_at_ms', now_s,
  'deadline_at_ms', string.format('%.0f', now + tonumber(deadline_ms)), unpack(ARGV, FIELDS))
redis.call('RPUSH', timeline, '{"at_ms":' .. now_s .. ',"event":"' .. event ..
  '","generation":' .. generation .. ',"detail":' .. detail .. '}')
redis.call('ZADD', index, requested, id)
local counts = {dispatches = 1, [event] = 1}
if occupied then
  counts.cancelled = 1
  observe(counts, 'generations', 1)
  observe(counts, 'tries', 0)
  redis.call('HSET', record, 'measured', '1')
  write_counts(metrics, counts, now)
  redis.call('HSET', record, 'failure_reason', closed_reason,
    'failure_message', closed_message .. other)
  for _, key in ipairs({record, timeline}) do redis.call('EXPIRE', key, retention_s) end
  announce({record, notified, outbox}, id, client_id, generation, state, now_s)
  return 'occupied'
end
redis.call('SET', live, id)
redis.call('ZADD', sessions, PLACES[state], id)
write_counts(metrics, counts, now)
redis.call('ZADD', due, now_s, id)
return 'restored'
