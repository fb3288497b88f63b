-- Counts the dispatches with a caller that wait for an agent of that name, without those whose
-- LiveKit is away: they take no slot.
-- Returns {{client, container, number}, ...}.
local waiting = KEYS[1]
local agent_name = ARGV[1]

local counts, by_name = {}, {}
for _, id in ipairs(redis.call('ZRANGE', waiting, 0, 999)) do
  local record = redis.pcall('HMGET', RECORD_PREFIX .. id, 'client_id', 'container', 'agent_name',
    'unattended', 'failure_reason')
  if not record.err and record[1] and record[3] == agent_name and record[4] ~= '1'
    and record[5] ~= 'livekit_unreachable' then
    local client, container = record[1], record[2] or ''
    local name = cjson.encode({client, container})
    if not by_name[name] then
      by_name[name] = {client, container, 0}
      counts[#counts + 1] = by_name[name]
    end
    by_name[name][3] = by_name[name][3] + 1
  end
end
return counts
