-- Reads what has been counted, in all or in a window: for a window it adds up the hashes of the
-- quarters of an hour and of the minutes that the window spans, and the present minute's.
-- Returns {time, since, {{counters, sessions in each state}, ...}, {key, counters, ...}}, counters
--   as field, value, field, value, ...
local index = KEYS[1]        -- of agent metrics
local CLIENTS = 2            -- from here on for each client its metrics and its sessions
local minutes = tonumber(ARGV[1])    -- length of the window; 0 for all
local bucket_ms = tonumber(ARGV[2])  -- of the bucket that it begins with
local states = tonumber(ARGV[3])     -- number of open states
local now = tonumber(ARGV[4])        -- 0: the present time
local of_clients = tonumber(ARGV[5])
-- Which agent metrics: "counted" (those of KEYS that follow the clients'), "found" (by the index,
-- those of the clients that ARGV names) or "named" (their keys only).
local mode = ARGV[6]
local NAMES = 7  -- clients' ids as they stand in keys, from here on
local agent_metrics = CLIENTS + 2 * of_clients  -- from here on in KEYS

if now == 0 then now = clock() end

local since, buckets = 0, {}
if minutes > 0 then
  since = math.floor(now / bucket_ms) * bucket_ms - minutes * 60000
  local at = since
  while at <= now do
    if at % 900000 == 0 then
      buckets[#buckets + 1] = ':quarter:' .. at / 900000
      at = at + 900000
    else
      buckets[#buckets + 1] = ':minute:' .. at / 60000
      at = at + 60000
    end
  end
end

local function counters(totals)
  -- What is counted of the present minute stands in none of the others (`counting.lua`).
  local open = tonumber(redis.call('GET', totals .. ':open') or nil)
  local begins = open and open * 60000
  local present = open and begins >= since and begins <= now
    and redis.call('HGETALL', totals .. ':open:' .. open) or {}
  if minutes == 0 and #present == 0 then return redis.call('HGETALL', totals) end
  local sums, flat = {}, {}
  local function sum_up(found)
    for i = 1, #found, 2 do sums[found[i]] = (sums[found[i]] or 0) + tonumber(found[i + 1]) end
  end
  sum_up(present)
  if minutes == 0 then sum_up(redis.call('HGETALL', totals)) end
  for _, bucket in ipairs(buckets) do sum_up(redis.call('HGETALL', totals .. bucket)) end
  for name, sum in pairs(sums) do
    flat[#flat + 1] = name
    flat[#flat + 1] = string.format('%.0f', sum)
  end
  return flat
end

local clients, agents = {}, {}
for i = 1, of_clients do
  local in_states = {}
  for state = 1, states do
    in_states[state] = redis.call('ZCOUNT', KEYS[CLIENTS + 2 * i - 1], state, state)
  end
  clients[i] = {counters(KEYS[CLIENTS + 2 * i - 2]), in_states}
end
local function add(key)
  agents[#agents + 1] = key
  agents[#agents + 1] = mode == 'named' and {} or counters(key)
end
if mode == 'counted' then
  for i = agent_metrics, #KEYS do add(KEYS[i]) end
else
  local wanted = {}
  for i = NAMES, #ARGV do wanted[ARGV[i]] = true end
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', index, math.max(0, since), '+inf')) do
    if wanted['*'] or wanted[string.match(key, '^[^:]*:[^:]*:[^:]*:([^:]*):')] then add(key) end
  end
end
return {now, since, clients, agents}
