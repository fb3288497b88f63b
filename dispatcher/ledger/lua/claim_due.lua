-- Takes the oldest due records and pushes their due time on, so that no other sweep wakes them too.
-- If more are due than may be taken, the clients' come in turn: one client's thousands must not
-- hold up the others'. Returns the dispatch ids.
local due, queue = KEYS[1], KEYS[2]
local limit, push_ms = tonumber(ARGV[1]), tonumber(ARGV[2])

local now = clock()
local ids = redis.call('ZRANGEBYSCORE', due, '-inf', string.format('%.0f', now),
  'LIMIT', 0, math.max(limit, 2000))

-- With a queue as long as that, records that wait in it and have time left are only pushed on:
-- their own messages will come, and a look at each of them would keep a worker from the queue.
if redis.call('LLEN', queue) >= limit then
  local others = {}
  for _, id in ipairs(ids) do
    local record = redis.pcall('HMGET', RECORD_PREFIX .. id, 'state', 'deadline_at_ms')
    local deadline = not record.err and record[1] == 'queued' and tonumber(record[2] or nil)
    if deadline and deadline - END_MARGIN_MS > now then
      push(due, id, now, push_ms)
    else
      others[#others + 1] = id
    end
  end
  ids = others
end

-- More than may be taken: the clients' in turn.
if #ids > limit then
  local line, picked = new_line(), {}
  for _, id in ipairs(ids) do
    local client = redis.pcall('HGET', RECORD_PREFIX .. id, 'client_id')
    if type(client) ~= 'string' then client = '' end  -- no record: its reader finds out
    join_line(line, client, id)
  end
  pick_in_turn(line, picked, limit)
  ids = picked
end
for _, id in ipairs(ids) do push(due, id, now, push_ms) end
return ids
