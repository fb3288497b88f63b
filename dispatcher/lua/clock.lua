-- The ledger's clock: Redis's own, made such that it never goes back. Part of other scripts.
-- Every time that the ledger keeps is of this clock. When Redis's goes back (somebody has set it, or
-- a replica whose clock is behind has taken over), the ledger's goes on from where it was, a fiftieth
-- slower until the two agree: so nothing that is due, leased, paced or counted waits for longer than
-- its own time.
-- CLOCK, the key, stands before it: "<the ledger's clock> <Redis's>" (ms), as they were lately.
local NOTED_EVERY_MS, SLOWER_BY = 1000, 50

-- The time in ms; then Redis's own, and what that was when it was noted.
local function read_clock()
  local t = redis.call('TIME')
  local is = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
  local noted, was = string.match(redis.call('GET', CLOCK) or '', '^(%d+) (%d+)$')
  if not noted then return is, is, nil end
  noted, was = tonumber(noted), tonumber(was)
  local passed = math.max(0, is - was)
  return math.max(is, noted + math.floor(passed - passed / SLOWER_BY)), is, was
end

-- The time in ms, for a script that writes anyway: it notes the time for the others.
local function keep_clock()
  local now, is, was = read_clock()
  if not was or is < was or is - was >= NOTED_EVERY_MS then
    redis.call('SET', CLOCK, string.format('%.0f %.0f', now, is))
  end
  return now
end
