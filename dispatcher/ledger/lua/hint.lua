-- Takes a webhook of LiveKit's as a hint. No record's state changes: a verification that waits for
-- the event, or the supervision of the dispatch, looks sooner.
-- A joined dispatch is looked at at once when its agent has left, or when an agent without a
-- dispatch id has joined: another backend has sent it.
-- Returns "replayed", "hinted" or "nothing".
local seen, leases = KEYS[1], KEYS[2]
local LIVE = 3  -- the keys under which a dispatch may serve that room, from here on
local seen_s, news, client, of_dispatch = ARGV[1], ARGV[2], ARGV[3], ARGV[4]  -- "": not known which
local event = ARGV[5]

if not redis.call('SET', seen, '1', 'NX', 'EX', seen_s) then return 'replayed' end
local ids = {}
if of_dispatch ~= '' then
  ids[1] = of_dispatch
else
  for i = LIVE, #KEYS do ids[#ids + 1] = redis.call('GET', KEYS[i]) or nil end
end
local answer = 'nothing'
local in_flight = {dispatching = true, dispatched = true, offered = true, accepted = true}
for _, id in ipairs(ids) do
  local record = redis.call('HMGET', RECORD_PREFIX .. id, 'client_id', 'state')
  if record[1] == client then
    if news == 'joined' and in_flight[record[2]] then
      redis.call('PUBLISH', WAKE_PREFIX .. id, event)
      answer = 'hinted'
    elseif (record[2] == 'joined' or record[2] == 'leaving')
      and (news == 'left' or of_dispatch == '') then
      local now = clock()
      if redis.call('ZSCORE', leases, id) then
        redis.call('HSET', RECORD_PREFIX .. id, 'look_at_ms', string.format('%.0f', now))
        redis.call('ZADD', leases, 'XX', 'LT', string.format('%.0f', now), id)
      end
      answer = 'hinted'
    end
  end
end
return answer
