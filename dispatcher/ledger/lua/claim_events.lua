-- Takes due events of every client, so many each, and pushes their time on, so that no other worker
-- sends them meanwhile.
-- Returns {end of the claim (ms), {event id, dispatch id and room of each}} (empty where the event
-- is gone or cannot be read: its delivery finds that out, too, and no other event waits for it).
local outboxes = KEYS
local limit, push_ms = ARGV[1], tonumber(ARGV[2])

local now = clock()
local till = now + push_ms
local later = string.format('%.0f', till)
local claimed = {}
for _, outbox in ipairs(outboxes) do
  local ids = redis.pcall('ZRANGEBYSCORE', outbox, '-inf', string.format('%.0f', now),
    'LIMIT', 0, limit)
  for _, id in ipairs(ids) do
    redis.call('ZADD', outbox, later, id)
    local event = redis.pcall('HMGET', EVENT_PREFIX .. id, 'dispatch_id', 'summary')
    local read, summary = pcall(cjson.decode, event[2] or '{}')
    local room = read and type(summary) == 'table' and summary.room_name
    claimed[#claimed + 1] = {id, event[1] or '', type(room) == 'string' and room or ''}
  end
end
return {till, claimed}
