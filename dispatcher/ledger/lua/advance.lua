-- Carries out one transition: checks state and generation, then writes everything, or nothing.
-- Returns {outcome, state, generation, job id, state before} with outcome one of
--   "moved", "noted", "refused" (not in this state), "stale" (another generation),
--   "late" (the caller no longer waits), "occupied" (another dispatch serves the room),
--   "wanted" (a caller has asked for the session again since then), "full" (every free slot is
--   promised to another dispatch on its way), "paced" (LiveKit has dropped some jobs: as many as
--   allowed are on their way), "unplaced" (no agent server that may be given the job has room),
--   "untold" (no worker can be sent a message now),
--   "too_many_requests", "too_many_at_once", "too_many_sessions", "too_fast", "overloaded" (its
--   client has reached a limit; instead of the job id: in how many ms it may ask again), "unknown"
--   (there is no such record, or it is another client's).
local record, attempts, timeline, due, live, metrics, leases, waiting, sessions, inflight, window,
  agent_servers, notified, outbox, agent_metrics, agent_metrics_index, failed, queue, rate,
  pace_key, busy = unpack(KEYS)
local order = cjson.decode(ARGV[1])  -- `Advance.order`; without a generation any one is meant

-- States of a record that may count as on its way to an agent: an agent server's claim ends that.
local MAY_BE_ON_ITS_WAY = {dispatching = true, dispatched = true, offered = true, delegated = true}
-- States of a record that is on no list of leases: it gets one when it joins.
local NEVER_ON_LEASE = {queued = true, waiting = true, dispatching = true, dispatched = true,
  offered = true}

local function set_all(key, prefix, fields)
  local list = {}
  for name, value in pairs(fields) do
    list[#list + 1] = prefix .. name
    list[#list + 1] = value
  end
  if #list > 0 then redis.call('HSET', key, unpack(list)) end
end
local READ = {'state', 'generation', 'job_id', 'requested_at_ms', 'deadline_at_ms',
  'first_generation', 'tries', 'measured', 'asked_at_ms', 'client_id', 'placed_on', unpack(MARKS)}
if order.once then READ[#READ + 1] = 'counted:' .. order.once end
local was = {}
for i, value in ipairs(redis.call('HMGET', record, unpack(READ))) do
  was[READ[i]] = value or nil
end
local state, generation, job_id = was.state, was.generation, was.job_id or ''
local function not_done(outcome, instead) return {outcome, state, generation, instead or job_id} end

-- A job names its client, and any holder of a LiveKit key can forge that: a caller must neither
-- change another client's record, nor learn that it exists.
if not state or (was.client_id and was.client_id ~= order.client) then
  return {'unknown', '', '0', ''}
end

-- Check that the record is as the caller has seen it, and that the change is still wanted.
if order.generation and order.generation ~= tonumber(generation) then return not_done('stale') end
local moves, notes = order.moves[state], order.notes[state]
if not moves and not notes then return not_done('refused') end
local now = clock()
local now_s = string.format('%.0f', now)
if order.not_after_ms and now > order.not_after_ms then return not_done('late') end
if moves and order.unless_asked_ms
    and now - tonumber(was.asked_at_ms or '0') <= order.unless_asked_ms then
  return not_done('wanted')
end
if moves and order.revive then
  local other = redis.call('GET', live)
  if other and other ~= order.id then return not_done('occupied', other) end
end
local message = order.wake and celery_message(order.wake)
if order.only_if_told and not message then return not_done('untold') end

-- Check its client's limits.
if order.limits then
  local function over(outcome, wait_ms)
    return not_done(outcome, string.format('%.0f', wait_ms or 0))
  end
  local limits, counted = order.limits, redis.call('ZSCORE', sessions, order.id)
  local early, full_at = bucket(rate, limits.requests_per_minute, now)
  if early then return over('too_many_requests', early) end
  if moves and has_all_sessions(sessions, limits.max_sessions, counted and 1 or 0) then
    return over('too_many_sessions')
  end
  if moves and has_used_its_share(due, busy, sessions, limits.backlog) then
    return over('overloaded')
  end
  local due_in, paced_till = pace(pace_key, limits.paced, now)
  local time = math.max(0, (order.deadline_in_ms or 0) - END_MARGIN_MS)
  if due_in > time / 2 and moves then
    return over('too_fast', due_in - time / 2)
  elseif due_in > 0 and moves then
    order.due_in_ms, order.wake = due_in, nil  -- the sweeper wakes it in its turn
  elseif due_in > 0 then
    return over('too_many_at_once', due_in)
  end
  count_request(rate, full_at, now)
  keep_pace(pace_key, paced_till, now)
  if moves and limits.backlog > 0 then redis.call('SADD', busy, sessions) end
end
if moves and order.revive then
  redis.call('SET', live, order.id)
  for _, key in ipairs({record, attempts, timeline}) do redis.call('PERSIST', key) end
end

-- Check for a free slot. A dispatch on its way counts until its agent server's report includes it.
if moves and order.admit then
  local at_most = window_of(window) or order.admit
  local under_way = redis.call('ZCARD', inflight)
  if under_way >= math.min(order.admit, at_most) then
    redis.call('ZREMRANGEBYSCORE', inflight, '-inf', now)
    under_way = redis.call('ZCARD', inflight)
  end
  if under_way >= order.admit then return not_done('full') end
  if under_way >= at_most then return not_done('paced') end
end

-- Choose the agent server that is given the job, without LiveKit.
if order.place then
  order.placed_on = moves and with_most_room(agent_servers, order.place.servers, now)
  if not order.placed_on then return not_done('unplaced') end
end

-- It is cancelled: an agent of it may be left in its room.
if moves and order.clears then
  if state == 'queued' and generation == '1' then
    -- A worker writes `dispatching` before it asks LiveKit: the room has no agent of it.
    order.due_in_ms, order.wake = nil, nil
  else
    order.fields.clearing = '1'
    local due_in, paced_till = pace(pace_key, order.paced, now)
    if due_in > 0 then
      order.wake = nil
    else
      keep_pace(pace_key, paced_till, now)
    end
  end
end
-- No worker can be sent a message (`celery_message.lua`): the sweeper wakes one.
if order.wake and not message and order.due_in_ms then order.due_in_ms = 0 end

-- All checks have passed; from here on it writes (a client's limits are counted above).
-- `new`: fields of the record, written at the end.
local before, terminal, new = state, TERMINAL[order.to], {updated_at_ms = now_s}
if moves then
  state = order.to
  if order.inflight_ms then
    redis.call('ZADD', inflight, string.format('%.0f', now + order.inflight_ms), order.id)
  elseif MAY_BE_ON_ITS_WAY[before] then
    redis.call('ZREM', inflight, order.id)
  end
  if order.arrived then
    -- A job that was given to this agent server has its slot already.
    local server_id = order.fields.agent_server_id or ''
    if server_id ~= was.placed_on then take_slot(agent_servers, server_id) end
    if redis.call('EXISTS', window) == 1 then redis.call('INCR', window) end
    if redis.call('ZCARD', waiting) > 0 then
      redis.call('PUBLISH', CAPACITY_CHANNEL, order.agent_name)
    end
  end
  if order.placed_on then
    local detail = cjson.decode(order.detail)
    detail.agent_server_id = order.placed_on
    order.detail, order.fields.placed_on = cjson.encode(detail), order.placed_on
    order.attempt.agent_server_id = order.placed_on
    take_slot(agent_servers, order.placed_on)
    hand_over(order.placed_on, order.place, now)
  end
  if order.dropped then
    -- LiveKit can take fewer at once than there are slots: half of them, and one more for each that
    -- arrives, until nothing has been dropped for WINDOW_MS.
    local under_way = redis.call('ZCOUNT', inflight, '(' .. now_s, '+inf')
    local half = math.floor((under_way + 1) / 2)
    redis.call('SET', window, math.max(LEAST_WINDOW, half), 'PX', WINDOW_MS)
  end
  if order.new_generation then
    generation = string.format('%d', tonumber(generation) + 1)
    new.generation = generation
    redis.call('HDEL', record, 'job_id', 'livekit_dispatch_id', 'agent_server_id',
      'agent_container', 'agent_identity', 'joined_at_ms', 'time_to_join_ms', 'failure_reason',
      'failure_message', 'alone_since_ms', 'alive_till_ms', 'look_at_ms', 'asked_at_ms',
      'loss', 'joined_seen_at_ms', 'left_by', 'placed_on', unpack(MARKS))
    forget_the_oldest(record, attempts, tonumber(generation))
  end
end

-- The record.
new.state = state
if moves and order.to == 'joined' then new.joined_seen_at_ms = now_s end
if order.deadline_as_before then
  order.deadline_in_ms = math.max(1000,
    tonumber(was.deadline_at_ms) - tonumber(was.requested_at_ms))
end
if order.deadline_in_ms then
  new.requested_at_ms = now_s
  new.deadline_at_ms = string.format('%.0f', now + order.deadline_in_ms)
end
if moves and order.losses then new.losses = string.format('%d', order.losses) end
if moves and order.anew then
  redis.call('HDEL', record, 'losses', 'person_seen', 'unattended', 'clearing', 'tries',
    'measured')
  new.first_generation = generation
end
for name, value in pairs(order.fields) do new[name] = value end

-- Its attempt and its timeline.
local counts = {}
local attempt_prefix = (order.generation or generation) .. '.'
if order.attempt.tries then
  -- Without a try in the record none has been counted of this attempt either.
  local before_it = order.anew and '0' or was.tries or '0'
  local known = before_it ~= '0' and redis.call('HGET', attempts, attempt_prefix .. 'tries') or '0'
  local more = tonumber(order.attempt.tries) - tonumber(known)
  add(counts, 'attempts', more)
  was.tries, was.tried = string.format('%d', tonumber(before_it) + more), true
  new.tries = was.tries
end
set_all(attempts, attempt_prefix, order.attempt)
local entries = {}
for i, event in ipairs(order.events) do
  entries[i] = '{"at_ms":' .. now_s .. ',"event":"' .. event ..
    '","generation":' .. generation .. ',"detail":' .. order.detail .. '}'
end
local too_many = redis.call('RPUSH', timeline, unpack(entries)) - 200
if too_many > 0 then
  -- An event keeps its number: followers of the timeline ask for the events after it.
  redis.call('LTRIM', timeline, -200, -1)
  redis.call('HINCRBY', record, 'timeline_dropped', too_many)
end

-- The lists that it is on.
if order.lease_ms then
  local till = string.format('%.0f', now + order.lease_ms)
  redis.call('ZADD', leases, till, order.id)
  new.alive_till_ms = till
elseif moves and not NEVER_ON_LEASE[before] then
  redis.call('ZREM', leases, order.id)
end
if moves then
  if state == 'waiting' then
    redis.call('ZADD', waiting, new.requested_at_ms or was.requested_at_ms, order.id)
  elseif before == 'waiting' then
    redis.call('ZREM', waiting, order.id)
  end
  if order.due_in_ms then
    local last = tonumber(new.deadline_at_ms or was.deadline_at_ms) - END_MARGIN_MS
    local due_at = now + order.due_in_ms
    if not terminal then due_at = math.min(due_at, math.max(now, last)) end
    redis.call('ZADD', due, string.format('%.0f', due_at), order.id)
  else
    redis.call('ZREM', due, order.id)
  end
  if (terminal or state == 'leaving') and redis.call('GET', live) == order.id then
    redis.call('DEL', live)
  end
  if terminal then
    redis.call('ZREM', sessions, order.id)
  else
    redis.call('ZADD', sessions, PLACES[state], order.id)
  end
  if order.to == 'failed' then
    redis.call('ZADD', failed, now_s, order.id)
    -- The records of these dispatches have expired.
    if order.retention_s > 0 then
      redis.call('ZREMRANGEBYSCORE', failed, '-inf', now - 1000 * order.retention_s)
    end
  elseif order.revive then
    redis.call('ZREM', failed, order.id)
  end
end

-- Counts, the record and announcements. A fact that may be reported twice counts once.
if not order.once or not was['counted:' .. order.once] then
  if order.once then new['counted:' .. order.once] = '1' end
  for name, value in pairs(stages(counts, was, order, moves, now)) do new[name] = value end
  if moves and (terminal or order.to == 'joined') and not (was.measured or order.anew) then
    first_result(counts, was, generation)
    new.measured = '1'
  end
  write_counts(metrics, counts, now)
  write_agent_counts(agent_metrics_index, agent_metrics, order.agent_counts, now)
end
set_all(record, '', new)
if moves and terminal and order.retention_s > 0 then
  for _, key in ipairs({record, attempts, timeline}) do
    redis.call('EXPIRE', key, order.retention_s)
  end
end
if moves and (terminal or state == 'joined') then
  announce({record, notified, outbox}, order.id, order.client, generation, state, now_s)
end
if order.wake and message then redis.call('LPUSH', queue, message) end
redis.call('PUBLISH', WAKE_PREFIX .. order.id, order.events[#order.events])
return {moves and 'moved' or 'noted', state, generation, job_id, before}
