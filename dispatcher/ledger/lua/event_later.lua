-- Has the event tried (again) later. Returns 1, or 0 when it no longer exists.
local event, outbox, metrics = unpack(KEYS)
local id, due_in_ms, failure = ARGV[1], tonumber(ARGV[2]), ARGV[3]  -- "": it was not even tried

if redis.call('EXISTS', event) == 0 then
  redis.call('ZREM', outbox, id)
  return 0
end
local now = clock()
if failure ~= '' then
  redis.call('HINCRBY', event, 'tries', 1)
  redis.call('HSET', event, 'error', failure)
  write_counts(metrics, {webhook_failures = 1}, now)
end
redis.call('ZADD', outbox, string.format('%.0f', now + due_in_ms), id)
return 1
