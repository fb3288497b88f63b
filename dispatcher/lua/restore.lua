-- Writes a record that Redis does not have, from what somebody remembers: a web process what it has
-- promised, an agent what it is there for. When another dispatch serves that room by now the record
-- is written as cancelled, so that whoever asks for it learns why.
-- KEYS: record, timeline, due, live, metrics, index, sessions, notified, outbox
-- ARGV: id, state, generation, age_ms, deadline_ms, event detail (JSON), closed reason, closed
--   message, retention_s, announcement (JSON), whose it is by the word of the web, which has seen a key
--   of that client's (empty: an agent says so), field, value, field, value, ...
-- Returns {"restored" | "exists" | "occupied", id of the dispatch that serves the room}.
local whose = redis.call('HGET', KEYS[1], 'client_id')
if whose and ARGV[11] ~= '' and whose ~= ARGV[11] then
  -- An agent of another client's has said that it is there for that id, which is no secret.
  redis.call('DEL', KEYS[1], KEYS[1] .. ':attempts', KEYS[2])
elseif redis.call('EXISTS', KEYS[1]) == 1 then
  return {'exists', ARGV[1]}
end
local now = clock()
local now_s = string.format('%.0f', now)
local other = redis.call('GET', KEYS[4])
local occupied = other and other ~= ARGV[1]
local state, event = ARGV[2], 'restored'
if occupied then state, event = 'cancelled', 'superseded' end
local requested = string.format('%.0f', now - tonumber(ARGV[4]))
redis.call('HSET', KEYS[1], 'state', state, 'generation', ARGV[3],
  'created_at_ms', requested, 'requested_at_ms', requested, 'updated_at_ms', now_s,
  'deadline_at_ms', string.format('%.0f', now + tonumber(ARGV[5])), unpack(ARGV, 12))
redis.call('RPUSH', KEYS[2], '{"at_ms":' .. now_s .. ',"event":"' .. event ..
  '","generation":' .. ARGV[3] .. ',"detail":' .. ARGV[6] .. '}')
redis.call('ZADD', KEYS[6], requested, ARGV[1])
local counts = {dispatches = 1, [event] = 1}
if occupied then
  counts.cancelled = 1
  observe(counts, 'generations', 1)
  observe(counts, 'tries', 0)
  redis.call('HSET', KEYS[1], 'measured', '1')
  write_counts(KEYS[5], counts, now)
  redis.call('HSET', KEYS[1], 'failure_reason', ARGV[7], 'failure_message', ARGV[8] .. other)
  for i = 1, 2 do redis.call('EXPIRE', KEYS[i], ARGV[9]) end
  announce(KEYS[1], KEYS[8], KEYS[9], cjson.decode(ARGV[10]), ARGV[3], state, now_s)
  return {'occupied', other}
end
redis.call('SET', KEYS[4], ARGV[1])
redis.call('ZADD', KEYS[7], PLACES[state], ARGV[1])
write_counts(KEYS[5], counts, now)
redis.call('ZADD', KEYS[3], now_s, ARGV[1])
return {'restored', ARGV[1]}
