-- How everything stands. KEYS: agent servers, alive, waiting, due, time of the last sweep, parked,
-- metrics of the ledger, then Celery's queues.
-- Returns {now, reports of agent servers, parts at work, waiting, first of those, overdue, first of
--   those, last sweep, parked, metrics of the ledger (field, value, ...), {length of each queue}};
--   what is not there is ''.
local now = clock()
local function fresh(key)
  local found, all = {}, redis.call('HGETALL', key)
  for i = 2, #all, 2 do
    local expires, report = string.match(all[i], '^(%d+) (.*)$')
    if tonumber(expires) > now then found[#found + 1] = report end
  end
  return found
end
local function first(key) return redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or '' end
local queues = {}
for i = 8, #KEYS do queues[i - 7] = redis.call('LLEN', KEYS[i]) end
return {now, fresh(KEYS[1]), fresh(KEYS[2]), redis.call('ZCARD', KEYS[3]), first(KEYS[3]),
  redis.call('ZCOUNT', KEYS[4], '-inf', now), first(KEYS[4]), redis.call('GET', KEYS[5]) or '',
  redis.call('HLEN', KEYS[6]), redis.call('HGETALL', KEYS[7]), queues}
