-- Takes the oldest due records and pushes their due time on, so that nobody else wakes them too. Of
-- more than may be taken, the clients' in turn: one with thousands shall not hold the others' up.
-- With a long queue, records that wait in it and have time left are only pushed on: their own
-- message comes, and whoever looked at each would keep a worker from the queue.
-- KEYS: due, queue. ARGV: limit, push_ms, prefix of record keys, long queue.
-- Returns the dispatch ids.
local now = clock()
local limit = tonumber(ARGV[1])
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now),
  'LIMIT', 0, math.max(limit, 2000))
local push_ms = tonumber(ARGV[2])
if redis.call('LLEN', KEYS[2]) >= tonumber(ARGV[4]) then
  local others = {}
  for _, id in ipairs(ids) do
    local record = redis.pcall('HMGET', ARGV[3] .. id, 'state', 'deadline_at_ms')
    local deadline = not record.err and record[1] == 'queued' and tonumber(record[2] or nil)
    if deadline and deadline - END_MARGIN_MS > now then
      push(KEYS[1], ARGV[3], id, now, push_ms)
    else
      others[#others + 1] = id
    end
  end
  ids = others
end
if #ids > limit then
  local queues, clients = {}, {}
  for _, id in ipairs(ids) do
    local client = redis.pcall('HGET', ARGV[3] .. id, 'client_id')
    if type(client) ~= 'string' then client = '' end  -- no record: whoever reads it will see
    if not queues[client] then
      queues[client] = {}
      clients[#clients + 1] = client
    end
    table.insert(queues[client], id)
  end
  local picked, round = {}, 1
  while #picked < limit do
    for _, client in ipairs(clients) do
      local id = queues[client][round]
      if id and #picked < limit then picked[#picked + 1] = id end
    end
    round = round + 1
  end
  ids = picked
end
for _, id in ipairs(ids) do push(KEYS[1], ARGV[3], id, now, push_ms) end
return ids
