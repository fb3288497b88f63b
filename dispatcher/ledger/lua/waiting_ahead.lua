-- Counts the dispatches with a caller that wait for an agent of that name, without those whose
-- LiveKit is away: they take no slot.
-- Returns {client, container, number, client, container, number, ...}.
local waiting = KEYS[1]
local agent_name = ARGV[1]

local counts, order = {}, {}
for _, id in ipairs(redis.call('ZRANGE', waiting, 0, 999)) do
  local record = redis.pcall('HMGET', RECORD_PREFIX .. id, 'client_id', 'container', 'agent_name',
    'unattended', 'failure_reason')
  if not record.err and record[1] and record[3] == agent_name and record[4] ~= '1'
    and record[5] ~= 'livekit_unreachable' then
    local whose = cjson.encode({record[1], record[2] or ''})
    if not counts[whose] then order[#order + 1] = whose end
    counts[whose] = (counts[whose] or 0) + 1
  end
end
local flat = {}
for _, whose in ipairs(order) do
  local names = cjson.decode(whose)
  for _, value in ipairs({names[1], names[2], counts[whose]}) do flat[#flat + 1] = value end
end
return flat
