-- Takes due events of every client, so many each, and pushes their time on, so that nobody else
-- sends them meanwhile. KEYS: outboxes. ARGV: limit of each, push_ms, prefix of the events' keys.
-- Returns {until when they are claimed (ms), {event id, dispatch id and room of each}} (empty where the
-- event is gone or cannot be read: its delivery finds that out, too, and no other event waits for it).
local now = clock()
local till = now + tonumber(ARGV[2])
local later = string.format('%.0f', till)
local claimed = {}
for _, outbox in ipairs(KEYS) do
  local ids = redis.pcall('ZRANGEBYSCORE', outbox, '-inf', string.format('%.0f', now),
    'LIMIT', 0, ARGV[1])
  for _, id in ipairs(ids) do
    redis.call('ZADD', outbox, later, id)
    local event = redis.pcall('HMGET', ARGV[3] .. id, 'dispatch_id', 'summary')
    local read, summary = pcall(cjson.decode, event[2] or '{}')
    local room = read and type(summary) == 'table' and summary.room_name
    claimed[#claimed + 1] = {id, event[1] or '', type(room) == 'string' and room or ''}
  end
end
return {till, claimed}
