-- Takes due events of every client, so many each, and pushes their time on, so that nobody else
-- sends them meanwhile. KEYS: outboxes. ARGV: limit of each, push_ms, prefix of the events' keys.
-- Returns {until when they are claimed (ms), {event id, dispatch id and room of each}} (empty where the
-- event is gone: whoever delivers it finds that out, too).
local now = clock()
local till = now + tonumber(ARGV[2])
local later = string.format('%.0f', till)
local claimed = {}
for _, outbox in ipairs(KEYS) do
  local ids = redis.call('ZRANGEBYSCORE', outbox, '-inf', string.format('%.0f', now),
    'LIMIT', 0, ARGV[1])
  for _, id in ipairs(ids) do
    redis.call('ZADD', outbox, later, id)
    local event = redis.call('HMGET', ARGV[3] .. id, 'dispatch_id', 'summary')
    local room = event[2] and cjson.decode(event[2]).room_name or ''
    claimed[#claimed + 1] = {id, event[1] or '', room}
  end
end
return {till, claimed}
