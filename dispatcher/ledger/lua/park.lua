-- Takes a record that no worker can work with off every list, and keeps its id with the reason.
local parked, record = KEYS[1], KEYS[2]
local LISTS = 3  -- every list that a record can be on, from here on
local id, reason = unpack(ARGV)

for i = LISTS, #KEYS do redis.call('ZREM', KEYS[i], id) end
-- Only the record names its client, if it can be read.
if redis.call('TYPE', record).ok == 'hash' then
  local client, agent, room = unpack(redis.call('HMGET', record, 'client_id', 'agent_name',
    'room_name'))
  if client then redis.call('ZREM', SESSIONS_PREFIX .. client, id) end
  if client and agent and room then
    -- Free the room: the next request for it gets a dispatch that works.
    local function quoted(name)  -- as in ledger/keys.py
      return (string.gsub(name, '[^%w_.~-]', function(c)
        return string.format('%%%02X', string.byte(c))
      end))
    end
    local live = LIVE_PREFIX .. client .. ':' .. quoted(agent) .. ':' .. quoted(room)
    if redis.call('GET', live) == id then redis.call('DEL', live) end
  end
end
return redis.call('HSET', parked, id, reason)
