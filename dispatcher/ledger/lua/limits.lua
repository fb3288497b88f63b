-- Checks a client's limits, the same for a new session and for one that is sent again. Part of
-- other scripts.

-- A bucket of so many requests, evenly refilled within a minute, kept as the moment at which it
-- will be full again: one number, which Redis expires at that moment.
-- Returns for how many ms it is empty (nil: it is not), and when it is full again with one request
-- more (nil: there is no limit).
local function bucket(key, per_minute, now)
  if per_minute <= 0 then return nil, nil end
  local full_at = math.max(now, tonumber(redis.call('GET', key) or '0')) + 60000 / per_minute
  local early = full_at - now - 60000
  if early > 0.5 then return math.ceil(early), full_at end
  return nil, full_at
end

local function count_request(key, full_at, now)
  if not full_at then return end
  redis.call('SET', key, string.format('%.3f', full_at), 'PX', math.ceil(full_at - now))
end

-- A session that is leaving does not block the next one, but its agent still holds a slot.
-- `counted`: 1 where the requested session is among the open ones already.
local function has_all_sessions(sessions, at_most, counted)
  if at_most <= 0 then return false end
  return redis.call('ZCOUNT', sessions, '-inf', '(' .. PLACES.leaving) - counted >= at_most
    or redis.call('ZCARD', sessions) - counted >= 2 * at_most
end

local function on_their_way(sessions)
  return redis.call('ZCOUNT', sessions, '-inf', '(' .. PLACES.joined)
end

-- Whether the sessions of all clients on their way have reached the limit, and this client has its
-- share of them: the limit over the number of clients that have any. Cancelled sessions are not on
-- their way, and one client's many cost the others nothing. It is counted only where the due list
-- is long, and clients with none on their way are forgotten then. `busy`: the keys of the clients'
-- open sessions.
local function has_used_its_share(due, busy, sessions, at_most)
  if at_most <= 0 or redis.call('ZCARD', due) < at_most then return false end
  local own = on_their_way(sessions)
  local all, clients = own, 1
  for _, other in ipairs(redis.call('SMEMBERS', busy)) do
    if other ~= sessions then
      local theirs = on_their_way(other)
      if theirs > 0 then
        all, clients = all + theirs, clients + 1
      else
        redis.call('SREM', busy, other)
      end
    end
  end
  return all >= at_most and own >= at_most / clients
end

-- The pace of a client, if it is `paced`: when it asks quickly, later sessions are due later.
-- Returns in how many ms this one is due, and the value for `keep_pace` when it is sent.
local function pace(key, paced, now)
  if not paced then return 0, nil end
  local till = math.max(now, tonumber(redis.call('GET', key) or '0')) + PACE_MS
  return math.max(0, math.ceil(till - now - PACE_MS * PACED_AT_ONCE)), till
end

local function keep_pace(key, till, now)
  if not till then return end
  redis.call('SET', key, string.format('%.3f', till), 'PX', math.ceil(till - now))
end
