-- Puts an event for the client's own server into the outbox, in the same step as the change that it
-- announces, so that no death of a process can come between them. Part of other scripts.
-- keys: clients that want events, outbox of this client. o: id, client, prefix, retention_s.
local function announce(record_key, notified_key, outbox_key, o, generation, state, now_s)
  if not redis.call('ZSCORE', notified_key, o.client) then return end
  local names = {'room_name', 'agent_name', 'container', 'agent_container', 'created_at_ms',
    'deadline_at_ms', 'agent_identity', 'joined_at_ms', 'time_to_join_ms', 'failure_reason',
    'failure_message'}
  local values = redis.call('HMGET', record_key, unpack(names))
  local summary = {state = state, generation = generation}
  for i, name in ipairs(names) do
    if values[i] and values[i] ~= '' then summary[name] = values[i] end
  end
  -- One per dispatch, generation and state: its id stays the same however often it is sent.
  local event_id = string.gsub(o.id, '^dsp_', 'msg_') .. '_' .. generation .. '_' .. state
  redis.call('HSET', o.prefix .. event_id, 'event_type', 'dispatch.' .. state,
    'client_id', o.client, 'dispatch_id', o.id, 'at_ms', now_s,
    'summary', cjson.encode(summary), 'tries', '0')
  redis.call('EXPIRE', o.prefix .. event_id, o.retention_s)
  redis.call('ZADD', outbox_key, now_s, event_id)
  redis.call('EXPIRE', outbox_key, o.retention_s)
end

