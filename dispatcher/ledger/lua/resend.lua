-- Puts dead events back into the outbox, due now, with the ids that they had. Returns their number.
local dead, outbox = unpack(KEYS)
local wanted = ARGV[1]  -- "": every one

local now = string.format('%.0f', clock())
local sent = 0
for _, text in ipairs(redis.call('LRANGE', dead, 0, -1)) do
  local event = cjson.decode(text)
  local id = event.event_id
  if wanted == '' or wanted == id then
    redis.call('LREM', dead, 0, text)
    event.event_id = nil
    event.tries = '0'
    for name, value in pairs(event) do redis.call('HSET', EVENT_PREFIX .. id, name, value) end
    redis.call('EXPIRE', EVENT_PREFIX .. id, EVENT_RETENTION_S)
    redis.call('ZADD', outbox, now, id)
    redis.call('EXPIRE', outbox, EVENT_RETENTION_S)
    sent = sent + 1
  end
end
return sent
