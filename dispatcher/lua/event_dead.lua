-- Nobody tries any more: the event is kept among the dead ones, the latest first.
-- KEYS: event, outbox, metrics, dead. ARGV: event id, error, how many are kept.
redis.call('ZREM', KEYS[2], ARGV[1])
local flat = redis.call('HGETALL', KEYS[1])
if #flat == 0 then return 0 end
local event = {event_id = ARGV[1]}
for i = 1, #flat, 2 do event[flat[i]] = flat[i + 1] end
event.error = ARGV[2]
event.tries = string.format('%d', tonumber(event.tries) + 1)
redis.call('DEL', KEYS[1])
redis.call('LPUSH', KEYS[4], cjson.encode(event))
redis.call('LTRIM', KEYS[4], 0, tonumber(ARGV[3]) - 1)
write_counts(KEYS[3], {webhook_failures = 1, webhooks_dead = 1}, clock())
return 1
