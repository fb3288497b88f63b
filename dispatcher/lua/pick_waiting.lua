-- The waiting dispatches to wake now that agent servers have room: each client's oldest first, the
-- clients in turn; and after all of these, in the same way, those that nobody has ever come to.
-- KEYS: waiting, due. ARGV: limit, push_ms, prefix of record keys.
-- Returns dispatch ids; those are not due for push_ms, so that the sweeper does not wake them too.
local function line() return {queues = {}, clients = {}} end
local attended, unattended = line(), line()
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, 999)) do
  local record = redis.pcall('HMGET', ARGV[3] .. id, 'client_id', 'unattended')
  local client = record[1]
  if record.err then client = '' end  -- no record: whoever reads it will see
  if not client then
    redis.call('ZREM', KEYS[1], id)
  else
    local whose = record[2] == '1' and unattended or attended
    if not whose.queues[client] then
      whose.queues[client] = {}
      whose.clients[#whose.clients + 1] = client
    end
    table.insert(whose.queues[client], id)
  end
end
local now = clock()
local picked, limit = {}, tonumber(ARGV[1])
for _, whose in ipairs({attended, unattended}) do
  local round = 1
  while #picked < limit do
    local before = #picked
    for _, client in ipairs(whose.clients) do
      local id = whose.queues[client][round]
      if id and #picked < limit then
        push(KEYS[2], ARGV[3], id, now, tonumber(ARGV[2]))
        picked[#picked + 1] = id
      end
    end
    if #picked == before then break end
    round = round + 1
  end
end
return picked
