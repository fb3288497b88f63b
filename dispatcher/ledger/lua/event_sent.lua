-- Deletes a delivered event. Returns 1, or 0 when another worker had sent it.
local event, outbox, metrics = unpack(KEYS)
local id = ARGV[1]
redis.call('ZREM', outbox, id)
if redis.call('DEL', event) == 0 then return 0 end
write_counts(metrics, {webhooks_delivered = 1}, clock())
return 1
