-- The ledger's clock: Redis's own, made such that it never goes back. Part of other scripts.
-- Every time in the ledger is of this clock. When Redis's clock goes back (an operator has set it,
-- or a replica whose clock is behind has taken over), the ledger's goes on from where it was, a
-- fiftieth slower until the two agree: so nothing that is due, leased, paced or counted waits for
-- longer than its own time.
-- The key CLOCK has "<the ledger's clock> <Redis's>" (ms), as last noted.
local NOTED_EVERY_MS, SLOWER_BY = 1000, 50

-- The time in ms.
local function clock()
  local t = redis.call('TIME')
  local is = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
  local noted, was = string.match(redis.call('GET', CLOCK) or '', '^(%d+) (%d+)$')
  local now = is
  if noted then
    was = tonumber(was)
    local passed = math.max(0, is - was)
    now = math.max(is, tonumber(noted) + math.floor(passed - passed / SLOWER_BY))
  end
  if not noted or is < was or is - was >= NOTED_EVERY_MS then
    -- A Redis that takes no writes now can still be read.
    redis.pcall('SET', CLOCK, string.format('%.0f %.0f', now, is))
  end
  return now
end
