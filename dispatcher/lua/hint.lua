-- LiveKit says that something has happened in a room. Nothing is changed: whoever waits for it or
-- looks after it looks sooner than it would have.
-- KEYS: seen, leases, then the keys under which a dispatch may serve that room.
-- ARGV: seen_s, "joined" | "left", client, dispatch id ("" if not known), prefix of record
--   keys, prefix of wake-up channels, event.
-- Of a joined one somebody looks at once when its agent has left, or when an agent has joined that
-- carries no dispatch: another backend has sent it.
-- Returns "replayed", "hinted" or "nothing".
if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[1]) then return 'replayed' end
local ids = {}
if ARGV[4] ~= '' then
  ids[1] = ARGV[4]
else
  for i = 3, #KEYS do ids[#ids + 1] = redis.call('GET', KEYS[i]) or nil end
end
local answer = 'nothing'
local in_flight = {dispatching = true, dispatched = true, offered = true, accepted = true}
for _, id in ipairs(ids) do
  local record = redis.call('HMGET', ARGV[5] .. id, 'client_id', 'state')
  if record[1] == ARGV[3] then
    if ARGV[2] == 'joined' and in_flight[record[2]] then
      redis.call('PUBLISH', ARGV[6] .. id, ARGV[7])
      answer = 'hinted'
    elseif (record[2] == 'joined' or record[2] == 'leaving')
      and (ARGV[2] == 'left' or ARGV[4] == '') then
      local now = clock()
      if redis.call('ZSCORE', KEYS[2], id) then
        redis.call('HSET', ARGV[5] .. id, 'look_at_ms', string.format('%.0f', now))
        redis.call('ZADD', KEYS[2], 'XX', 'LT', string.format('%.0f', now), id)
      end
      answer = 'hinted'
    end
  end
end
return answer
