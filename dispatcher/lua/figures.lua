-- What has been counted, in all or lately: for a window the hashes of the quarters of an hour and of
-- the minutes that it is made of are added up.
-- KEYS: index of agent metrics, then for each client its metrics and its sessions, then agent metrics.
-- ARGV: length of the window (minutes; 0 for all), ms of the bucket that it begins with, number of
--   open states, the time (ms; 0: now), number of clients, which agent metrics: "counted" (those of
--   KEYS), "found" (by the index, those of the clients that follow) or "named" (their keys only),
--   then clients' ids as they stand in keys.
-- Returns {time, since, {{counters, sessions in each state}, ...}, {key, counters, ...}}, counters as
--   field, value, field, value, ...
local minutes, bucket_ms, states = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now, of_clients, mode = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
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

local clients, agents = {}, {}
for i = 1, of_clients do
  local in_states = {}
  for state = 1, states do
    in_states[state] = redis.call('ZCOUNT', KEYS[2 * i + 1], state, state)
  end
  clients[i] = {counters(KEYS[2 * i]), in_states}
end
local function add(key)
  agents[#agents + 1] = key
  agents[#agents + 1] = mode == 'named' and {} or counters(key)
end
if mode == 'counted' then
  for i = 2 * of_clients + 2, #KEYS do add(KEYS[i]) end
else
  local wanted = {}
  for i = 7, #ARGV do wanted[ARGV[i]] = true end
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], math.max(0, since), '+inf')) do
    if wanted['*'] or wanted[string.match(key, '^[^:]*:[^:]*:[^:]*:([^:]*):')] then add(key) end
  end
end
return {now, since, clients, agents}
