-- Derives the stages of a session from a change of state. Part of advance.lua.
-- r: the record before, by field. a: the order. moves: whether the state changes. MARKS are the
-- times (ms) at which this generation entered each stage. Returns those that are to be written.
local MARKS = {'queued_at_ms', 'dispatching_at_ms', 'dispatched_at_ms', 'offered_at_ms',
  'accepted_at_ms'}
local BY_STATE = {joined = 'joined', ended = 'ended', cancelled = 'cancelled', failed = 'failures'}
local BY_EVENT = {redispatch = 'redispatches', agent_lost = 'agents_lost',
  agent_crashed = 'agents_crashed', surplus_agent = 'surplus_agents',
  foreign_agent = 'foreign_agents'}

local function stages(counts, r, a, moves, now)
  local event = a.events[#a.events]
  local set = {}
  local function mark(name, at)
    r[name], set[name] = at, string.format('%.0f', at)
  end
  local function took(name, from, till)
    if r[from] then observe(counts, name, math.max(0, till - tonumber(r[from]))) end
  end
  if moves and a.to == 'queued' then mark('queued_at_ms', now) end
  if moves and a.to == 'dispatching' then
    if r.state == 'queued' then
      took('queue_wait', r.queued_at_ms and 'queued_at_ms' or 'requested_at_ms', now)
    end
    mark('dispatching_at_ms', now)
  end
  -- An offer may be reported before CreateDispatch has returned.
  if a.offered_ago_ms and not r.offered_at_ms then
    mark('offered_at_ms', now - a.offered_ago_ms)
    took('offer', 'dispatched_at_ms', r.offered_at_ms)
  end
  if event == 'dispatched' and not r.dispatched_at_ms then
    add(counts, 'dispatched', 1)
    took('dispatch', 'dispatching_at_ms', now)
    mark('dispatched_at_ms', now)
    if r.offered_at_ms then observe(counts, 'offer', 0) end
  end
  if moves and a.to == 'accepted' then
    took('accept', 'offered_at_ms', now)
    mark('accepted_at_ms', now)
  end
  if moves and a.to == 'joined' then
    took('join', 'accepted_at_ms', tonumber(a.fields.joined_at_ms or now))
    if a.fields.time_to_join_ms then
      observe(counts, 'time_to_join', tonumber(a.fields.time_to_join_ms))
    end
  end
  if moves and BY_STATE[a.to] then
    add(counts, BY_STATE[a.to], 1)
    if a.to == 'failed' then add(counts, 'failures:' .. (a.fields.failure_reason or ''), 1) end
  end
  if BY_EVENT[event] then
    -- In a session that no person ever joined, no person has missed the agent.
    local idle = event == 'agent_lost' and a.fields.unattended == '1'
    add(counts, idle and 'idle_agents_lost' or BY_EVENT[event], 1)
  end
  -- Each session counts once: it gets its agent or not; and one that had it may still lose it.
  if moves and a.to == 'joined' and not r.measured then add(counts, 'sessions_joined', 1) end
  if moves and a.to == 'failed' then
    add(counts, r.measured and 'sessions_lost' or 'sessions_failed', 1)
  end
  return set
end

-- Number of generations and tries of a session: counted once, when it first joins or ends.
local function first_result(counts, r, generation)
  observe(counts, 'generations', generation - tonumber(r.first_generation or '1') + 1)
  -- A try that LiveKit has carried out but not answered counts too.
  local unanswered = r.dispatching_at_ms and not r.dispatched_at_ms and not r.tried and 1 or 0
  observe(counts, 'tries', tonumber(r.tries or '0') + unanswered)
end
