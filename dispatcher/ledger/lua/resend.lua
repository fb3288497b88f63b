-- Puts dead events back into the outbox, due now, with the ids that they had. Returns their number.
local dead, outbox = unpack(KEYS)
local wanted, event_prefix, retention_s = ARGV[1], ARGV[2], ARGV[3]  -- wanted "": every one

local now = string.format('%.0f', clock())
local sent = 0
for _, text in ipairs(redis.call('LRANGE', dead, 0, -1)) do
  local event = cjson.decode(text)
  local id = event.event_id
  if wanted == '' or wanted == id then
    redis.call('LREM', dead, 0, text)
    event.event_id = nil
    event.tries = '0'
    for name, value in pairs(event) do redis.call('HSET', event_prefix .. id, name, value) end
    redis.call('EXPIRE', event_prefix .. id, retention_s)
    redis.call('ZADD', outbox, now, id)
    redis.call('EXPIRE', outbox, retention_s)
    sent = sent + 1
  end
end
return sent
