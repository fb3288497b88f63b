-- Writes a new record, unless a live one serves the same client, room and agent already, or too
-- many are on their way.
-- KEYS: record, timeline, due, live, metrics, index, open
-- ARGV: prefix of record keys, id, deadline_ms, due_in_ms, event detail (JSON),
--   records on their way at once (0: any number), field, value, field, value, ...
-- Returns {"created" | "existing", dispatch id, state}, or {"overloaded"} with nothing written.
local existing = redis.call('GET', KEYS[4])
local state = existing and redis.call('HGET', ARGV[1] .. existing, 'state')
if state then return {'existing', existing, state} end
local at_most = tonumber(ARGV[6])
if at_most > 0 and redis.call('ZCARD', KEYS[3]) >= at_most then return {'overloaded'} end
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local now_s = string.format('%.0f', now)
redis.call('HSET', KEYS[1], 'state', 'queued', 'generation', '1',
  'created_at_ms', now_s, 'requested_at_ms', now_s, 'updated_at_ms', now_s,
  'deadline_at_ms', string.format('%.0f', now + tonumber(ARGV[3])), unpack(ARGV, 7))
redis.call('RPUSH', KEYS[2],
  '{"at_ms":' .. now_s .. ',"event":"queued","generation":1,"detail":' .. ARGV[5] .. '}')
redis.call('ZADD', KEYS[3], string.format('%.0f', now + tonumber(ARGV[4])), ARGV[2])
redis.call('SET', KEYS[4], ARGV[2])
redis.call('ZADD', KEYS[6], now_s, ARGV[2])
redis.call('SADD', KEYS[7], ARGV[2])
redis.call('HINCRBY', KEYS[5], 'dispatches', 1)
return {'created', ARGV[2], 'queued'}
