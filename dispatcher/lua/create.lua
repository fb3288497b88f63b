-- Writes a new record, unless a live one serves the same client, room and agent already.
-- KEYS: record, timeline, due, live, metrics, index, open, idempotency key
-- ARGV: prefix of record keys, id, deadline_ms, due_in_ms, event detail (JSON), request's
--   idempotency (JSON; empty without), field, value, field, value, ...
-- Returns {"created" | "existing" | "repeated" | "conflict", dispatch id, state, room, identity}; the
-- last two are what a repeated request was answered with.

-- Idempotency-Key: the same request gets what it got before, whatever has become of that.
local once = ARGV[6] ~= '' and cjson.decode(ARGV[6])
if once then
  local before = redis.call('HMGET', KEYS[8], 'request', 'dispatch_id', 'room', 'identity')
  if before[1] then
    if before[1] ~= once.request then return {'conflict', before[2], '', '', ''} end
    -- A record that has ended and gone before its key: it has ended.
    local is = redis.call('HGET', ARGV[1] .. before[2], 'state') or 'ended'
    return {'repeated', before[2], is, before[3], before[4]}
  end
end
local function remember(id)
  if not once then return end
  redis.call('HSET', KEYS[8], 'request', once.request, 'dispatch_id', id, 'room', once.room,
    'identity', once.identity)
  redis.call('EXPIRE', KEYS[8], once.ttl_s)
end
-- Promised to this very request while Redis was away, and written since.
local promised = once and redis.call('HGET', KEYS[1], 'state')
if promised then
  remember(ARGV[2])
  return {'repeated', ARGV[2], promised, once.room, once.identity}
end

local existing = redis.call('GET', KEYS[4])
local state = existing and redis.call('HGET', ARGV[1] .. existing, 'state')
if state then
  remember(existing)
  return {'existing', existing, state, '', ''}
end
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
-- Of the index three are looked at, so that what has gone goes from there too, whoever lists or not.
for _, id in ipairs(redis.call('ZRANDMEMBER', KEYS[6], 3)) do
  if redis.call('EXISTS', ARGV[1] .. id) == 0 then redis.call('ZREM', KEYS[6], id) end
end
remember(ARGV[2])
return {'created', ARGV[2], 'queued', '', ''}
