-- Keeps a report for a while. Returns the ledger's clock (ms).
local reports, waiting = KEYS[1], KEYS[2]  -- waiting: only with a channel
local name, report, ttl_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])  -- ttl 0 takes it away
local channel, message = ARGV[4], ARGV[5]  -- to tell when dispatches wait, if any

local now = clock()
if ttl_ms == 0 then
  redis.call('HDEL', reports, name)
  return now
end
if waiting and channel ~= '' and redis.call('ZCARD', waiting) > 0 then
  redis.call('PUBLISH', channel, message)
end
redis.call('HSET', reports, name, string.format('%.0f', now + ttl_ms) .. ' ' .. report)
return now
