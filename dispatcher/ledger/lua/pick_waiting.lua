-- Takes the waiting dispatches to wake now that agent servers have room: each client's oldest
-- first, the clients in turn; after them, in the same way, those that no person has ever joined.
-- Returns dispatch ids; they are not due for push_ms, so that the sweeper does not wake them too.
local waiting, due = unpack(KEYS)
local limit, push_ms = tonumber(ARGV[1]), tonumber(ARGV[2])

local attended, unattended = new_line(), new_line()
for _, id in ipairs(redis.call('ZRANGE', waiting, 0, 999)) do
  local record = redis.pcall('HMGET', RECORD_PREFIX .. id, 'client_id', 'unattended')
  local client = record[1]
  if record.err then client = '' end  -- no record: the worker that reads it finds out
  if not client then
    redis.call('ZREM', waiting, id)
  else
    join_line(record[2] == '1' and unattended or attended, client, id)
  end
end
local now = clock()
local picked = {}
pick_in_turn(attended, picked, limit)
pick_in_turn(unattended, picked, limit)
for _, id in ipairs(picked) do push(due, id, now, push_ms) end
return picked
