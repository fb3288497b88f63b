-- KEYS: event, outbox, metrics. ARGV: event id. Returns 1, or 0 when somebody else had sent it.
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('DEL', KEYS[1]) == 0 then return 0 end
write_counts(KEYS[3], {webhooks_delivered = 1}, clock())
return 1
