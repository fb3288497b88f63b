-- Returns the record, on request its attempts, its timeline ('' stands for none) and the agent
-- servers, and Redis's clock in ms, in one consistent read; for a key of another type under a
-- record's name, the error instead, as for a record that cannot be read.
local record_key, attempts_key, timeline_key, agent_servers = unpack(KEYS)

local now = clock()
local record = redis.pcall('HGETALL', record_key)
local attempts, timeline = {}, {}
if attempts_key then attempts = redis.pcall('HGETALL', attempts_key) end
if timeline_key and timeline_key ~= '' then
  timeline = redis.pcall('LRANGE', timeline_key, 0, -1)
end
local wrong = record.err or attempts.err or timeline.err
if wrong then return {now, {'unreadable', wrong}, {}, {}} end
return {now, record, attempts, timeline, agent_servers and fresh_reports(agent_servers, now)}
