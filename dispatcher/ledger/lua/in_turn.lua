-- Takes the clients in turn: one client's thousands must not hold up the others'. Part of other
-- scripts.

local function new_line() return {queues = {}, clients = {}} end

-- Put `id` at the end of its client's queue; the clients are in the order of their first id.
local function join_line(line, client, id)
  if not line.queues[client] then
    line.queues[client] = {}
    line.clients[#line.clients + 1] = client
  end
  table.insert(line.queues[client], id)
end

-- Add to `picked` the first of each client, the second of each, and so on, until there are `limit`.
local function pick_in_turn(line, picked, limit)
  local round = 0
  repeat
    local before = #picked
    round = round + 1
    for _, client in ipairs(line.clients) do
      local id = line.queues[client][round]
      if id and #picked < limit then picked[#picked + 1] = id end
    end
  until #picked == before
end
