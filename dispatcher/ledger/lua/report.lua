-- Keeps reports for a while. Returns the ledger's clock (ms).
local reports, waiting = KEYS[1], KEYS[2]  -- waiting: only with an agent name
local ttl_ms = tonumber(ARGV[1])           -- 0 takes the reports away
local agent_name = ARGV[2]  -- of a server that has room, to tell when dispatches wait; else empty
local REPORTS = 3           -- name, report (JSON), name, report, ... from here on

local now = clock()
if ttl_ms > 0 and agent_name ~= '' and redis.call('ZCARD', waiting) > 0 then
  redis.call('PUBLISH', CAPACITY_CHANNEL, agent_name)
end
local expires = string.format('%.0f', now + ttl_ms)
for i = REPORTS, #ARGV, 2 do
  if ttl_ms == 0 then
    redis.call('HDEL', reports, ARGV[i])
  else
    redis.call('HSET', reports, ARGV[i], expires .. ' ' .. ARGV[i + 1])
  end
end
return now
