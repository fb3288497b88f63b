-- Gives the event up: it is kept among the dead ones, the latest first.
local event_key, outbox, metrics, dead = unpack(KEYS)
local id, failure, most_kept = ARGV[1], ARGV[2], tonumber(ARGV[3])

redis.call('ZREM', outbox, id)
local flat = redis.call('HGETALL', event_key)
if #flat == 0 then return 0 end
local event = {event_id = id}
for i = 1, #flat, 2 do event[flat[i]] = flat[i + 1] end
event.error = failure
event.tries = string.format('%d', tonumber(event.tries) + 1)
redis.call('DEL', event_key)
redis.call('LPUSH', dead, cjson.encode(event))
redis.call('LTRIM', dead, 0, most_kept - 1)
write_counts(metrics, {webhook_failures = 1, webhooks_dead = 1}, clock())
return 1
