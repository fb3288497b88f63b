-- KEYS: event, outbox, metrics. ARGV: event id, due_in_ms, error ("" when it was not even tried).
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('ZREM', KEYS[2], ARGV[1])
  return 0
end
local now = clock()
if ARGV[3] ~= '' then
  redis.call('HINCRBY', KEYS[1], 'tries', 1)
  redis.call('HSET', KEYS[1], 'error', ARGV[3])
  write_counts(KEYS[3], {webhook_failures = 1}, now)
end
redis.call('ZADD', KEYS[2], string.format('%.0f', now + tonumber(ARGV[2])), ARGV[1])
return 1
