-- Counts in the same step as the change that is counted, so that no death of a process can come
-- between them. Part of other scripts.
-- Beside every hash of totals there is one with the same fields for each minute and for each
-- quarter of an hour, for recent windows.
local MINUTE_MS, QUARTER_MS = 60000, 900000

local function add(counts, name, by) counts[name] = (counts[name] or 0) + by end

local function write_counts(totals, counts, now)
  if not next(counts) then return end
  local minute = totals .. ':minute:' .. math.floor(now / MINUTE_MS)
  local quarter = totals .. ':quarter:' .. math.floor(now / QUARTER_MS)
  for name, by in pairs(counts) do
    redis.call('HINCRBY', totals, name, by)
    -- The first count of this field: the hash may be new.
    if redis.call('HINCRBY', minute, name, by) == by then redis.call('EXPIRE', minute, 7200) end
    if redis.call('HINCRBY', quarter, name, by) == by then redis.call('EXPIRE', quarter, 90000) end
  end
end

-- Counts of agent servers. Their containers come and go, and client ids in jobs can be forged: a
-- hash without a count for 30 days is forgotten, and beyond a number of hashes the new ones are
-- counted together, under an empty name.
local function write_agent_counts(index, totals, counts, now)
  if not next(counts) then return end
  if not redis.call('ZSCORE', index, totals) then
    redis.call('ZREMRANGEBYSCORE', index, '-inf', now - 2592000000)
    if redis.call('ZCARD', index) >= 1000 then
      totals = string.match(totals, '^[^:]*:[^:]*:[^:]*:') .. '::'
    end
  end
  redis.call('ZADD', index, now, totals)
  write_counts(totals, counts, now)
  redis.call('EXPIRE', totals, 2592000)
end
