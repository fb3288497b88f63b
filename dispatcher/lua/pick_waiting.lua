-- The waiting dispatches to wake now that agent servers have room: each client's oldest first, the
-- clients in turn. KEYS: waiting, due. ARGV: limit, push_ms, prefix of record keys.
-- Returns dispatch ids; those are not due for push_ms, so that the sweeper does not wake them too.
local queues, clients = {}, {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, 999)) do
  local client = redis.pcall('HGET', ARGV[3] .. id, 'client_id')
  if type(client) == 'table' then client = '' end  -- no record: whoever reads it will see
  if not client then
    redis.call('ZREM', KEYS[1], id)
  else
    if not queues[client] then
      queues[client] = {}
      clients[#clients + 1] = client
    end
    table.insert(queues[client], id)
  end
end
local now = clock()
local picked, limit, round = {}, tonumber(ARGV[1]), 1
while #picked < limit do
  local before = #picked
  for _, client in ipairs(clients) do
    local id = queues[client][round]
    if id and #picked < limit then
      push(KEYS[2], ARGV[3], id, now, tonumber(ARGV[2]))
      picked[#picked + 1] = id
    end
  end
  if #picked == before then break end
  round = round + 1
end
return picked
