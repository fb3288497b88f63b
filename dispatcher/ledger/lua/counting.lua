-- Counts in the same step as the change that is counted, so that no death of a process can come
-- between them. Part of other scripts.
-- A count is written once, into the hash of the present minute: <totals>:open:<minute>, of which
-- <totals>:open has the number. The first count of another minute closes that hash: it is added to
-- the totals, and to the hashes with the same fields for its minute and for its quarter of an hour,
-- which are for recent windows. A reader adds the open hash (`figures.lua`).
local MINUTE_MS, QUARTER_MS = 60000, 900000

local function add(counts, name, by) counts[name] = (counts[name] or 0) + by end

-- Add to the fields of a hash. Returns true when none of them was there.
local function increase(key, names, by)
  if #names == 1 then return redis.call('HINCRBY', key, names[1], by[names[1]]) == by[names[1]] end
  local is, list, all_new = redis.call('HMGET', key, unpack(names)), {}, true
  for i, name in ipairs(names) do
    all_new = all_new and not is[i]
    list[2 * i - 1] = name
    list[2 * i] = string.format('%.0f', tonumber(is[i] or '0') + by[name])
  end
  redis.call('HSET', key, unpack(list))
  return all_new
end

local function close(totals, minute)
  local open = totals .. ':open:' .. minute
  local flat, names, by = redis.call('HGETALL', open), {}, {}
  for i = 1, #flat, 2 do
    names[#names + 1] = flat[i]
    by[flat[i]] = tonumber(flat[i + 1])
  end
  redis.call('DEL', open)
  if #names == 0 then return end
  local of_minute = totals .. ':minute:' .. minute
  local of_quarter = totals .. ':quarter:' .. math.floor(minute * MINUTE_MS / QUARTER_MS)
  for _, key in ipairs({totals, of_minute, of_quarter}) do increase(key, names, by) end
  redis.call('EXPIRE', of_minute, 7200)
  redis.call('EXPIRE', of_quarter, 90000)
end

-- Returns true when these are the first counts of a minute.
local function write_counts(totals, counts, now)
  local names, minute = {}, math.floor(now / MINUTE_MS)
  for name in pairs(counts) do names[#names + 1] = name end
  if #names == 0 then return false end
  local open = totals .. ':open:' .. minute
  if not increase(open, names, counts) or redis.call('HLEN', open) > #names then return false end
  local before = tonumber(redis.call('GET', totals .. ':open') or nil)
  redis.call('SET', totals .. ':open', minute)
  if before and before ~= minute then close(totals, before) end
  return true
end

-- Counts of agent servers. Their containers come and go, and client ids in jobs can be forged: a
-- hash without a count for 30 days is forgotten, and beyond a number of hashes the new ones are
-- counted together, under an empty name.
local function write_agent_counts(index, totals, counts, now)
  if not write_counts(totals, counts, now) then return end
  if not redis.call('ZSCORE', index, totals) then
    redis.call('ZREMRANGEBYSCORE', index, '-inf', now - 2592000000)
    if redis.call('ZCARD', index) >= 1000 then
      redis.call('DEL', totals .. ':open', totals .. ':open:' .. math.floor(now / MINUTE_MS))
      totals = string.match(totals, '^[^:]*:[^:]*:[^:]*:') .. '::'
      if not write_counts(totals, counts, now) then return end
    end
  end
  redis.call('ZADD', index, now, totals)
  local open = totals .. ':open'
  for _, key in ipairs({totals, open, open .. ':' .. math.floor(now / MINUTE_MS)}) do
    redis.call('EXPIRE', key, 2592000)
  end
end
