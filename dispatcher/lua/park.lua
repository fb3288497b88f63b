-- KEYS: parked, record, then every list that a record can be on. ARGV: id, reason, prefixes of the
-- keys of open sessions and of live rooms (whose the record is, only the record says, if it can).
for i = 3, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
if redis.call('TYPE', KEYS[2]).ok == 'hash' then
  local client, agent, room = unpack(redis.call('HMGET', KEYS[2], 'client_id', 'agent_name',
    'room_name'))
  if client then redis.call('ZREM', ARGV[3] .. client, ARGV[1]) end
  if client and agent and room then
    -- The room is free: the next request for it gets a dispatch that somebody works on.
    local function quoted(name)  -- as in keys.py
      return (string.gsub(name, '[^%w_.~-]', function(c)
        return string.format('%%%02X', string.byte(c))
      end))
    end
    local live = ARGV[4] .. client .. ':' .. quoted(agent) .. ':' .. quoted(room)
    if redis.call('GET', live) == ARGV[1] then redis.call('DEL', live) end
  end
end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
