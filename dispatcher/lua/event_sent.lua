-- KEYS: event, outbox, metrics. ARGV: event id. Returns 1, or 0 when somebody else had sent it.
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('DEL', KEYS[1]) == 0 then return 0 end
local t = redis.call('TIME')
write_counts(KEYS[3], {webhooks_delivered = 1}, tonumber(t[1]) * 1000)
return 1
