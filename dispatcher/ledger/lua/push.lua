-- Pushes the due time of a record that is being woken on, so that no other sweep wakes it too: for
-- so long, but not past the moment at which it must end to end before its deadline. Part of other
-- scripts.
local function push(due_key, id, now, push_ms)
  local deadline = redis.pcall('HGET', RECORD_PREFIX .. id, 'deadline_at_ms')
  local last = type(deadline) == 'string' and tonumber(deadline) or 0
  local due = now + push_ms
  if last - END_MARGIN_MS > now then due = math.min(due, last - END_MARGIN_MS) end
  redis.call('ZADD', due_key, 'XX', string.format('%.0f', due), id)
end
