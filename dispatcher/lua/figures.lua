-- What has been counted, in all or lately: for a window the hashes of the quarters of an hour and of
-- the minutes that it is made of are added up.
-- KEYS: index of agent metrics, then for each client its metrics and its sessions.
-- ARGV: length of the window (minutes; 0 for all), ms of the bucket that it begins with, number of
--   open states, then the clients' ids as they stand in keys.
-- Returns {now, since, {{counters, sessions in each state}, ...}, {key, counters, ...}}, counters as
--   field, value, field, value, ...
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local minutes, bucket_ms, states = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

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
  if minutes == 0 then return redis.call('HGETALL', totals) end
  local sums, flat = {}, {}
  for _, bucket in ipairs(buckets) do
    local found = redis.call('HGETALL', totals .. bucket)
    for i = 1, #found, 2 do sums[found[i]] = (sums[found[i]] or 0) + tonumber(found[i + 1]) end
  end
  for name, sum in pairs(sums) do
    flat[#flat + 1] = name
    flat[#flat + 1] = string.format('%.0f', sum)
  end
  return flat
end

local clients, wanted, agents = {}, {}, {}
for i = 4, #ARGV do
  wanted[ARGV[i]] = true
  local in_states = {}
  for state = 1, states do
    in_states[state] = redis.call('ZCOUNT', KEYS[2 * i - 5], state, state)
  end
  clients[i - 3] = {counters(KEYS[2 * i - 6]), in_states}
end
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], math.max(0, since), '+inf')) do
  if wanted['*'] or wanted[string.match(key, '^[^:]*:[^:]*:[^:]*:([^:]*):')] then
    agents[#agents + 1] = key
    agents[#agents + 1] = counters(key)
  end
end
return {now, since, clients, agents}
