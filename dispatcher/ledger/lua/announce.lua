-- Puts an event for the client's own server into the outbox, in the same step as the change that it
-- announces, so that no death of a process can come between them. Part of other scripts.
-- keys: the record, the clients that want events, the outbox of this client.
local function announce(keys, dispatch_id, client_id, generation, state, now_s)
  local record_key, notified_key, outbox_key = unpack(keys)
  if not redis.call('ZSCORE', notified_key, client_id) then return end
  local names = {'room_name', 'agent_name', 'container', 'agent_container', 'created_at_ms',
    'deadline_at_ms', 'agent_identity', 'joined_at_ms', 'time_to_join_ms', 'failure_reason',
    'failure_message'}
  local values = redis.call('HMGET', record_key, unpack(names))
  local summary = {state = state, generation = generation}
  for i, name in ipairs(names) do
    if values[i] and values[i] ~= '' then summary[name] = values[i] end
  end
  -- One per dispatch, generation and state: its id stays the same however often it is sent.
  local event_id = string.gsub(dispatch_id, '^dsp_', 'msg_') .. '_' .. generation .. '_' .. state
  redis.call('HSET', EVENT_PREFIX .. event_id, 'event_type', 'dispatch.' .. state,
    'client_id', client_id, 'dispatch_id', dispatch_id, 'at_ms', now_s,
    'summary', cjson.encode(summary), 'tries', '0')
  redis.call('EXPIRE', EVENT_PREFIX .. event_id, EVENT_RETENTION_S)
  redis.call('ZADD', outbox_key, now_s, event_id)
  redis.call('EXPIRE', outbox_key, EVENT_RETENTION_S)
end

