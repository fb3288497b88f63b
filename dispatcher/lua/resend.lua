-- Puts dead events back into the outbox, due now, with the ids that they had.
-- KEYS: dead, outbox. ARGV: event id ("" is every one), prefix of event keys, retention_s.
-- Returns their number.
local now = string.format('%.0f', clock())
local sent = 0
for _, text in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  local event = cjson.decode(text)
  local id = event.event_id
  if ARGV[1] == '' or ARGV[1] == id then
    redis.call('LREM', KEYS[1], 0, text)
    event.event_id = nil
    event.tries = '0'
    for name, value in pairs(event) do redis.call('HSET', ARGV[2] .. id, name, value) end
    redis.call('EXPIRE', ARGV[2] .. id, ARGV[3])
    redis.call('ZADD', KEYS[2], now, id)
    redis.call('EXPIRE', KEYS[2], ARGV[3])
    sent = sent + 1
  end
end
return sent
