-- Writes a new record, unless a live one serves the same client, room and agent already, the same
-- request was answered before, or a limit has been reached. Of a client that asks quickly, the
-- later ones are due later.
-- KEYS: record, timeline, due, live, metrics, index, sessions, rate, pace, idempotency key, queue,
--   clients with sessions on their way
-- ARGV: prefix of record keys, id, deadline_ms, due_in_ms, event detail (JSON), requests per minute
--   (0: any), sessions at once (0: any), ms between two wake-ups (0: no pace), how many go at once,
--   sessions on their way of all clients at once (0: any), request's idempotency (JSON; empty
--   without), message that wakes the dispatcher, time after which nobody waits for the answer any
--   more (ms; empty: somebody does), field, value, ...
-- Returns {"created"}, {"existing", dispatch id, state}, {"over", dispatch id, state} (the people of
--   that one have left, and its agent has other metadata: nothing is written),
--   {"repeated", dispatch id, state, room, identity} (what that request was answered with) or
--   {"conflict", dispatch id}; or, with nothing written, {"too_many_requests", ms until there may be
--   one more}, {"too_many_sessions"}, {"overloaded"}, {"too_fast", ms until one more would be due early
--   enough before its deadline} or {"late"} (its caller has been told that it failed). No more than is
--   needed: every value costs the web tens of microseconds to read.
local FIELDS = 14  -- from here on
local now = clock()
local now_s = string.format('%.0f', now)
if ARGV[13] ~= '' and now > tonumber(ARGV[13]) then return {'late'} end

local early, full_at = bucket(KEYS[8], tonumber(ARGV[6]), now)
if early then return {'too_many_requests', early} end

-- The agent may be about to leave, because its people have left: it asks whether this came since.
-- And whoever asks is there: the session is no longer one that nobody has come to.
local function asked_again(record, is)
  redis.call('HDEL', record, 'unattended')
  if is == 'accepted' or is == 'joined' then redis.call('HSET', record, 'asked_at_ms', now_s) end
end

-- Idempotency-Key: the same request gets what it got before, whatever has become of that.
local once = ARGV[11] ~= '' and cjson.decode(ARGV[11])
if once then
  local before = redis.call('HMGET', KEYS[10], 'request', 'dispatch_id', 'room', 'identity')
  if before[1] then
    count_request(KEYS[8], full_at, now)
    if before[1] ~= once.request then return {'conflict', before[2]} end
    -- A record that has ended and gone before its key: it has ended.
    local is = redis.call('HGET', ARGV[1] .. before[2], 'state') or 'ended'
    asked_again(ARGV[1] .. before[2], is)
    return {'repeated', before[2], is, before[3], before[4]}
  end
end
local function remember(id)
  if not once then return end
  redis.call('HSET', KEYS[10], 'request', once.request, 'dispatch_id', id, 'room', once.room,
    'identity', once.identity)
  redis.call('EXPIRE', KEYS[10], once.ttl_s)
end
-- Promised to this very request while Redis was away, and written since.
local promised = once and redis.call('HGET', KEYS[1], 'state')
if promised then
  count_request(KEYS[8], full_at, now)
  remember(ARGV[2])
  asked_again(KEYS[1], promised)
  return {'repeated', ARGV[2], promised, once.room, once.identity}
end

local existing = redis.call('GET', KEYS[4])
local found = existing and redis.call('HMGET', ARGV[1] .. existing, 'state', 'alone_since_ms',
  'person_seen', 'agent_metadata') or {}
local state = found[1]
if state and found[2] and found[3] then
  local metadata = ''
  for i = FIELDS, #ARGV, 2 do
    if ARGV[i] == 'agent_metadata' then metadata = ARGV[i + 1] end
  end
  if metadata ~= (found[4] or '') then return {'over', existing, state} end
end
if state then
  count_request(KEYS[8], full_at, now)
  asked_again(ARGV[1] .. existing, state)
  remember(existing)
  return {'existing', existing, state}
end
local at_most = tonumber(ARGV[10])
if has_all_sessions(KEYS[7], tonumber(ARGV[7]), 0) then return {'too_many_sessions'} end
if has_used_its_share(KEYS[3], KEYS[12], KEYS[7], at_most) then return {'overloaded'} end

-- When it must end to end before its deadline. The way into the room takes its time, too: half of
-- what there is, at the least.
local time = math.max(0, tonumber(ARGV[3]) - END_MARGIN_MS)
local due_in, paced = pace(KEYS[9], tonumber(ARGV[8]), tonumber(ARGV[9]), now)
if due_in > time / 2 then return {'too_fast', math.ceil(due_in - time / 2)} end
keep_pace(KEYS[9], paced, now)
count_request(KEYS[8], full_at, now)
redis.call('HSET', KEYS[1], 'state', 'queued', 'generation', '1',
  'created_at_ms', now_s, 'requested_at_ms', now_s, 'updated_at_ms', now_s,
  'deadline_at_ms', string.format('%.0f', now + tonumber(ARGV[3])), unpack(ARGV, FIELDS))
redis.call('RPUSH', KEYS[2],
  '{"at_ms":' .. now_s .. ',"event":"queued","generation":1,"detail":' .. ARGV[5] .. '}')
local due = now + math.min(due_in > 0 and due_in or tonumber(ARGV[4]), time)
redis.call('ZADD', KEYS[3], string.format('%.0f', due), ARGV[2])
redis.call('SET', KEYS[4], ARGV[2])
redis.call('ZADD', KEYS[6], now_s, ARGV[2])
redis.call('ZADD', KEYS[7], PLACES.queued, ARGV[2])
if at_most > 0 then redis.call('SADD', KEYS[12], KEYS[7]) end
write_counts(KEYS[5], {dispatches = 1}, now)
-- Of the index three are looked at, so that what has gone goes from there too, whoever lists or not.
for _, id in ipairs(redis.call('ZRANDMEMBER', KEYS[6], 3)) do
  if redis.call('EXISTS', ARGV[1] .. id) == 0 then redis.call('ZREM', KEYS[6], id) end
end
remember(ARGV[2])
if due_in == 0 then redis.call('LPUSH', KEYS[11], ARGV[12]) end
return {'created'}
