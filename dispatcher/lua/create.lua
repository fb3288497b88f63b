-- Writes a new record, unless a live one serves the same client, room and agent already, or the
-- client has reached a limit of its. Of a client that asks quickly, the later ones are due later.
-- KEYS: record, timeline, due, live, metrics, index, open, rate, pace
-- ARGV: prefix of record keys, id, deadline_ms, due_in_ms, event detail (JSON), requests per minute
--   (0: any), sessions at once (0: any), ms between two wake-ups (0: no pace), how many go at once,
--   field, value, field, value, ...
-- Returns {"created" | "existing", dispatch id, state, due_in_ms}, or, with nothing written,
--   {"too_many_requests", ms until there may be one more} or {"too_many_sessions"}.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local existing = redis.call('GET', KEYS[4])
local state = existing and redis.call('HGET', ARGV[1] .. existing, 'state')
-- A bucket of so many requests, evenly refilled within a minute, kept as the moment at which it
-- will be full again: one number, which Redis forgets by itself when that has come.
local rate, full_at = tonumber(ARGV[6]), nil
if rate > 0 then
  full_at = math.max(now, tonumber(redis.call('GET', KEYS[8]) or '0')) + 60000 / rate
  local early = full_at - now - 60000
  if early > 0.5 then return {'too_many_requests', math.ceil(early)} end
end
local sessions = tonumber(ARGV[7])
if not state and sessions > 0 and redis.call('SCARD', KEYS[7]) >= sessions then
  return {'too_many_sessions'}
end
if full_at then
  redis.call('SET', KEYS[8], string.format('%.3f', full_at), 'PX', math.ceil(full_at - now))
end
if state then return {'existing', existing, state, 0} end
local now_s = string.format('%.0f', now)
local due_in, step = 0, tonumber(ARGV[8])
if step > 0 then
  local paced = math.max(now, tonumber(redis.call('GET', KEYS[9]) or '0')) + step
  redis.call('SET', KEYS[9], string.format('%.3f', paced), 'PX', math.ceil(paced - now))
  due_in = math.max(0, math.ceil(paced - now - step * tonumber(ARGV[9])))
end
redis.call('HSET', KEYS[1], 'state', 'queued', 'generation', '1',
  'created_at_ms', now_s, 'requested_at_ms', now_s, 'updated_at_ms', now_s,
  'deadline_at_ms', string.format('%.0f', now + tonumber(ARGV[3])), unpack(ARGV, 10))
redis.call('RPUSH', KEYS[2],
  '{"at_ms":' .. now_s .. ',"event":"queued","generation":1,"detail":' .. ARGV[5] .. '}')
redis.call('ZADD', KEYS[3], string.format('%.0f', now + (due_in > 0 and due_in or tonumber(ARGV[4]))), ARGV[2])
redis.call('SET', KEYS[4], ARGV[2])
redis.call('ZADD', KEYS[6], now_s, ARGV[2])
redis.call('SADD', KEYS[7], ARGV[2])
redis.call('HINCRBY', KEYS[5], 'dispatches', 1)
return {'created', ARGV[2], 'queued', due_in}
