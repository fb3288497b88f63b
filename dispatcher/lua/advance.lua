-- One change of state: compared with state and generation, then written whole, or not at all.
-- KEYS: record, attempts, timeline, due, live, metrics, leases, waiting, sessions, inflight, window,
--   agent servers, notified, outbox, agent metrics, index of those, failed, queue, rate, pace (of what
--   is sent or, for what is cancelled, of that), clients with sessions on their way
-- ARGV: one JSON object, see `advance` in ledger.py; without a generation in it any one is meant.
-- Returns {outcome, state, generation, job id, state before} with outcome one of
--   "moved", "noted", "refused" (not in this state), "stale" (another generation),
--   "late" (nobody waits for the answer any more), "occupied" (another dispatch serves the room),
--   "wanted" (a caller has asked for the session again since then), "full" (every free slot is
--   promised to another one that is on its way), "paced" (LiveKit has dropped some: as many as it
--   may be sent are on their way), "too_many_requests", "too_many_sessions", "overloaded" (what its
--   client may ask for is used up; instead of the job id: in how many ms it may ask again),
--   "unknown" (there is none, or it is another client's).
local a = cjson.decode(ARGV[1])
local function set_all(key, prefix, fields)
  local list = {}
  for name, value in pairs(fields) do
    list[#list + 1] = prefix .. name
    list[#list + 1] = value
  end
  if #list > 0 then redis.call('HSET', key, unpack(list)) end
end
local READ = {'state', 'generation', 'job_id', 'requested_at_ms', 'first_generation', 'tries',
  'measured', 'asked_at_ms', 'client_id', unpack(MARKS)}
local r = {}
for i, value in ipairs(redis.call('HMGET', KEYS[1], unpack(READ))) do r[READ[i]] = value or nil end
local state, generation, job_id = r.state, r.generation, r.job_id or ''
-- A job says for which client it is, and that is anybody's claim who has a LiveKit key: nobody
-- changes another client's record, nor learns that there is one.
if not state or (r.client_id and r.client_id ~= a.client) then
  return {'unknown', '', '0', ''}
end
if a.generation and a.generation ~= tonumber(generation) then
  return {'stale', state, generation, job_id}
end
local moves, notes = a.moves[state], a.notes[state]
local before = state
local now = clock()
if not moves and not notes then
  return {'refused', state, generation, job_id}
end
if a.not_after_ms and now > a.not_after_ms then
  return {'late', state, generation, job_id}
end
if moves and a.unless_asked_ms and now - tonumber(r.asked_at_ms or '0') <= a.unless_asked_ms then
  return {'wanted', state, generation, job_id}
end
if moves and a.revive then
  local other = redis.call('GET', KEYS[5])
  if other and other ~= a.id then
    return {'occupied', state, generation, other}
  end
end
if a.limits then
  local function refused(outcome, wait_ms)
    return {outcome, state, generation, string.format('%.0f', wait_ms or 0)}
  end
  local limits, counted = a.limits, redis.call('ZSCORE', KEYS[9], a.id)
  local early, full_at = bucket(KEYS[19], limits.requests_per_minute, now)
  if early then return refused('too_many_requests', early) end
  if moves and has_all_sessions(KEYS[9], limits.max_sessions, counted and 1 or 0) then
    return refused('too_many_sessions')
  end
  if moves and has_used_its_share(KEYS[4], KEYS[21], KEYS[9], limits.backlog) then
    return refused('overloaded')
  end
  local due_in, paced = pace(KEYS[20], limits.pace_ms, limits.at_once, now)
  local time = math.max(0, (a.deadline_in_ms or 0) - (a.end_margin_ms or 0))
  if due_in > time / 2 and moves then
    return refused('too_fast', due_in - time / 2)
  elseif due_in > 0 and moves then
    a.due_in_ms, a.wake = due_in, nil  -- the sweeper wakes it in its turn
  elseif due_in > 0 then
    return refused('too_many_requests', due_in)
  end
  count_request(KEYS[19], full_at, now)
  keep_pace(KEYS[20], paced, now)
  if moves and limits.backlog > 0 then redis.call('SADD', KEYS[21], KEYS[9]) end
end
if moves and a.revive then
  redis.call('SET', KEYS[5], a.id)
  for i = 1, 3 do redis.call('PERSIST', KEYS[i]) end
end
if moves and a.admit then
  -- What is on its way counts until its agent server's report tells of it.
  redis.call('ZREMRANGEBYSCORE', KEYS[10], '-inf', now)
  local window = window_of(KEYS[11]) or a.admit
  local on_their_way = redis.call('ZCARD', KEYS[10])
  if on_their_way >= a.admit then return {'full', state, generation, job_id} end
  if on_their_way >= window then return {'paced', state, generation, job_id} end
end
local now_s = string.format('%.0f', now)
if moves and a.clears then
  if state == 'queued' and generation == '1' then
    -- A worker says in the record that it asks LiveKit before it does: nothing can be in the room.
    a.due_in_ms, a.wake = nil, nil
  else
    a.fields.clearing = '1'
    local due_in, paced = pace(KEYS[20], a.clears.pace_ms, a.clears.at_once, now)
    if due_in > 0 then
      a.wake = nil
    else
      keep_pace(KEYS[20], paced, now)
    end
  end
end
if moves then
  state = a.to
  if a.inflight_ms then
    redis.call('ZADD', KEYS[10], string.format('%.0f', now + a.inflight_ms), a.id)
  else
    redis.call('ZREM', KEYS[10], a.id)
  end
  if a.arrived then
    -- It has a slot from now on, not only from its agent server's next report on.
    local server_id = a.fields.agent_server_id or ''
    local expires, report = string.match(redis.call('HGET', KEYS[12], server_id) or '',
      '^(%d+) (.*)$')
    if report then
      report = cjson.decode(report)
      report.used_slots = report.used_slots + 1
      for _, left in ipairs({'takes', 'starts'}) do
        if type(report[left]) == 'number' then report[left] = math.max(0, report[left] - 1) end
      end
      redis.call('HSET', KEYS[12], server_id, expires .. ' ' .. cjson.encode(report))
    end
    if redis.call('EXISTS', KEYS[11]) == 1 then redis.call('INCR', KEYS[11]) end
    if redis.call('ZCARD', KEYS[8]) > 0 then
      redis.call('PUBLISH', a.capacity_channel, a.agent_name)
    end
  end
  if a.dropped then
    -- LiveKit takes fewer at once than there are slots: half of them, and then one more for each
    -- that arrives, until nothing has been dropped for WINDOW_MS.
    local half = math.floor((redis.call('ZCARD', KEYS[10]) + 1) / 2)
    redis.call('SET', KEYS[11], math.max(a.least_window, half), 'PX', WINDOW_MS)
  end
  if a.new_generation then
    generation = string.format('%d', tonumber(generation) + 1)
    redis.call('HSET', KEYS[1], 'generation', generation)
    redis.call('HDEL', KEYS[1], 'job_id', 'livekit_dispatch_id', 'agent_server_id',
      'agent_container', 'agent_identity', 'joined_at_ms', 'time_to_join_ms', 'failure_reason',
      'failure_message', 'alone_since_ms', 'alive_till_ms', 'look_at_ms', 'asked_at_ms',
      'loss', 'joined_seen_at_ms', 'left_by', unpack(MARKS))
    forget_the_oldest(KEYS[1], KEYS[2], tonumber(generation))
  end
end
redis.call('HSET', KEYS[1], 'state', state, 'updated_at_ms', now_s)
if moves and a.to == 'joined' then redis.call('HSET', KEYS[1], 'joined_seen_at_ms', now_s) end
if a.deadline_as_before then
  local times = redis.call('HMGET', KEYS[1], 'deadline_at_ms', 'requested_at_ms')
  a.deadline_in_ms = math.max(1000, tonumber(times[1]) - tonumber(times[2]))
end
if a.deadline_in_ms then
  redis.call('HSET', KEYS[1], 'requested_at_ms', now_s,
    'deadline_at_ms', string.format('%.0f', now + a.deadline_in_ms))
end
if moves and a.losses then redis.call('HSET', KEYS[1], 'losses', string.format('%d', a.losses)) end
if moves and a.anew then
  redis.call('HDEL', KEYS[1], 'losses', 'person_seen', 'unattended', 'clearing', 'tries',
    'measured')
  redis.call('HSET', KEYS[1], 'first_generation', generation)
end
set_all(KEYS[1], '', a.fields)
local counts = {}
if a.attempt.tries then
  local before = redis.call('HGET', KEYS[2], (a.generation or generation) .. '.tries') or '0'
  local more = tonumber(a.attempt.tries) - tonumber(before)
  add(counts, 'attempts', more)
  r.tries, r.tried = redis.call('HINCRBY', KEYS[1], 'tries', more), true
end
set_all(KEYS[2], (a.generation or generation) .. '.', a.attempt)
for _, event in ipairs(a.events) do
  redis.call('RPUSH', KEYS[3], '{"at_ms":' .. now_s .. ',"event":"' .. event ..
    '","generation":' .. generation .. ',"detail":' .. a.detail .. '}')
end
local too_many = redis.call('LLEN', KEYS[3]) - 200
if too_many > 0 then
  -- An event keeps its number: who follows the timeline asks for what comes after it.
  redis.call('LTRIM', KEYS[3], -200, -1)
  redis.call('HINCRBY', KEYS[1], 'timeline_dropped', too_many)
end
if a.lease_ms then
  local till = string.format('%.0f', now + a.lease_ms)
  redis.call('ZADD', KEYS[7], till, a.id)
  redis.call('HSET', KEYS[1], 'alive_till_ms', till)
elseif moves then
  redis.call('ZREM', KEYS[7], a.id)
end
if moves then
  if state == 'waiting' then
    redis.call('ZADD', KEYS[8], redis.call('HGET', KEYS[1], 'requested_at_ms'), a.id)
  else
    redis.call('ZREM', KEYS[8], a.id)
  end
  if a.due_in_ms then
    local last = tonumber(redis.call('HGET', KEYS[1], 'deadline_at_ms')) - a.end_margin_ms
    local due = now + a.due_in_ms
    if not a.terminal then due = math.min(due, math.max(now, last)) end
    redis.call('ZADD', KEYS[4], string.format('%.0f', due), a.id)
  else
    redis.call('ZREM', KEYS[4], a.id)
  end
  if a.frees_room and redis.call('GET', KEYS[5]) == a.id then redis.call('DEL', KEYS[5]) end
  if a.terminal then
    redis.call('ZREM', KEYS[9], a.id)
  else
    redis.call('ZADD', KEYS[9], PLACES[state], a.id)
  end
  if a.to == 'failed' then
    redis.call('ZADD', KEYS[17], now_s, a.id)
    -- Their records have gone.
    if a.retention_s > 0 then
      redis.call('ZREMRANGEBYSCORE', KEYS[17], '-inf', now - 1000 * a.retention_s)
    end
  elseif a.revive then
    redis.call('ZREM', KEYS[17], a.id)
  end
  if a.terminal and a.retention_s > 0 then
    for i = 1, 3 do redis.call('EXPIRE', KEYS[i], a.retention_s) end
  end
end
if moves and a.announce then
  announce(KEYS[1], KEYS[13], KEYS[14], a.announce, generation, state, now_s)
end
-- What may be told twice, and then counts once.
if not a.once or redis.call('HSETNX', KEYS[1], 'counted:' .. a.once, '1') == 1 then
  set_all(KEYS[1], '', stages(counts, r, a, moves, now))
  if moves and (a.terminal or a.to == 'joined') and not (r.measured or a.anew) then
    first_result(counts, r, generation)
    redis.call('HSET', KEYS[1], 'measured', '1')
  end
  write_counts(KEYS[6], counts, now)
  write_agent_counts(KEYS[16], KEYS[15], a.agent_counts, now)
end
if a.wake then redis.call('LPUSH', KEYS[18], a.wake) end
redis.call('PUBLISH', a.channel, a.events[#a.events])
return {moves and 'moved' or 'noted', state, generation, job_id, before}
