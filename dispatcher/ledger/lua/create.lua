-- Writes a new record, unless a live one serves the same client, room and agent already, the same
-- request was answered before, or a limit has been reached. For a client that asks quickly, later
-- records are due later.
-- Returns {"created"}, {"existing", dispatch id, state}, {"over",
--   dispatch id, state} (the people of that one have left, and its agent has other metadata:
--   nothing is written), {"repeated", dispatch id, state, room, identity} (the first answer to that
--   request) or {"conflict", dispatch id}; or, with nothing written, {"too_many_requests", ms until
--   one more is allowed}, {"too_many_sessions"}, {"overloaded"}, {"too_fast", ms until one more
--   would be due early enough before its deadline} or {"late"} (its caller has been told that it
--   failed). No more than is needed: every value costs the web tens of microseconds to read.
local record, timeline, due, live, metrics, index, sessions, rate, pace_key, repeated, queue,
  busy = unpack(KEYS)
local order = cjson.decode(ARGV[1])  -- see `create` in ledger/dispatches.py
local FIELDS = 2                     -- field, value, field, value, ... from here on
local id, limits, once = order.id, order.limits, order.once

local now = clock()
local now_s = string.format('%.0f', now)
if order.not_after_ms and now > order.not_after_ms then return {'late'} end
local early, full_at = bucket(rate, limits.requests_per_minute, now)
if early then return {'too_many_requests', early} end

-- The agent may be about to leave, because all people have left: it checks for a request since. And
-- the caller is still to come: the session is no longer `unattended`.
local function asked_again(of, is)
  redis.call('HDEL', of, 'unattended')
  if is == 'accepted' or is == 'joined' or is == 'delegated' then redis.call('HSET', of, 'asked_at_ms', now_s) end
end

-- Idempotency-Key: the same request gets its first answer again, whatever has become of it.
if once then
  local before = redis.call('HMGET', repeated, 'request', 'dispatch_id', 'room', 'identity')
  if before[1] then
    count_request(rate, full_at, now)
    if before[1] ~= once.request_digest then return {'conflict', before[2]} end
    -- The record is gone before the key, so it has ended.
    local is = redis.call('HGET', RECORD_PREFIX .. before[2], 'state') or 'ended'
    asked_again(RECORD_PREFIX .. before[2], is)
    return {'repeated', before[2], is, before[3], before[4]}
  end
end
local function remember(answered)
  if not once then return end
  redis.call('HSET', repeated, 'request', once.request_digest, 'dispatch_id', answered,
    'room', once.room_name, 'identity', once.identity)
  redis.call('EXPIRE', repeated, IDEMPOTENCY_S)
end

-- Accepted by a web process for this very request while Redis was away, and written since.
local promised = once and redis.call('HGET', record, 'state')
if promised then
  count_request(rate, full_at, now)
  remember(id)
  asked_again(record, promised)
  return {'repeated', id, promised, once.room_name, once.identity}
end

-- The room has a live dispatch.
local existing = redis.call('GET', live)
local found = existing and redis.call('HMGET', RECORD_PREFIX .. existing, 'state',
  'alone_since_ms', 'person_seen', 'agent_metadata') or {}
local state = found[1]
if state and found[2] and found[3] then
  local metadata = ''
  for i = FIELDS, #ARGV, 2 do
    if ARGV[i] == 'agent_metadata' then metadata = ARGV[i + 1] end
  end
  if metadata ~= (found[4] or '') then return {'over', existing, state} end
end
if state then
  count_request(rate, full_at, now)
  asked_again(RECORD_PREFIX .. existing, state)
  remember(existing)
  return {'existing', existing, state}
end

-- Check its client's limits.
if has_all_sessions(sessions, limits.max_sessions, 0) then return {'too_many_sessions'} end
if has_used_its_share(due, busy, sessions, limits.backlog) then return {'overloaded'} end
-- When it must end to end before its deadline. Half of that time, at least, is left for the way
-- into the room.
local time = math.max(0, order.deadline_ms - END_MARGIN_MS)
local due_in, paced_till = pace(pace_key, limits.paced, now)
if due_in > time / 2 then return {'too_fast', math.ceil(due_in - time / 2)} end
keep_pace(pace_key, paced_till, now)
count_request(rate, full_at, now)

-- Write it, with the message that wakes the dispatch worker. Where no worker can be sent a message
-- (`celery_message.lua`) it is due at once, and the sweeper wakes one.
local message = due_in == 0 and celery_message(order.wake)
if due_in == 0 and message then due_in = order.due_in_ms end
redis.call('HSET', record, 'state', 'queued', 'generation', '1',
  'created_at_ms', now_s, 'requested_at_ms', now_s, 'updated_at_ms', now_s,
  'deadline_at_ms', string.format('%.0f', now + order.deadline_ms), unpack(ARGV, FIELDS))
redis.call('RPUSH', timeline,
  '{"at_ms":' .. now_s .. ',"event":"queued","generation":1,"detail":' .. order.detail .. '}')
redis.call('ZADD', due, string.format('%.0f', now + math.min(due_in, time)), id)
redis.call('SET', live, id)
redis.call('ZADD', index, now_s, id)
redis.call('ZADD', sessions, PLACES.queued, id)
if limits.backlog > 0 then redis.call('SADD', busy, sessions) end
write_counts(metrics, {dispatches = 1}, now)
-- Three members of the index are checked, so that expired ones go from it even without listings.
local members, records = redis.call('ZRANDMEMBER', index, 3), {}
for i, one in ipairs(members) do records[i] = RECORD_PREFIX .. one end
if redis.call('EXISTS', unpack(records)) < #records then
  for i, one in ipairs(members) do
    if redis.call('EXISTS', records[i]) == 0 then redis.call('ZREM', index, one) end
  end
end
remember(id)
if message then redis.call('LPUSH', queue, message) end
return {'created'}
