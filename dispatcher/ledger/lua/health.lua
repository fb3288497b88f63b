-- Reads the health of the ledger.
-- Returns {now, reports of agent servers, parts at work, waiting, first of those, overdue, first of
--   those, last sweep, parked, metrics of the ledger (field, value, ...), {length of each queue}};
--   a missing value is ''.
local agent_servers, alive, waiting, due, swept_at, parked, metrics = unpack(KEYS, 1, 7)
local QUEUES = 8  -- Celery's, from here on

local now = clock()
local function first(key) return redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or '' end
local queues = {}
for i = QUEUES, #KEYS do queues[i - QUEUES + 1] = redis.call('LLEN', KEYS[i]) end
return {now, fresh_reports(agent_servers, now), fresh_reports(alive, now),
  redis.call('ZCARD', waiting), first(waiting),
  redis.call('ZCOUNT', due, '-inf', now), first(due), redis.call('GET', swept_at) or '',
  redis.call('HLEN', parked), redis.call('HGETALL', metrics), queues}
