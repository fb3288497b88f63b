-- Returns the record, its attempts and its timeline, the agent servers on request, and Redis's
-- clock in ms, in one consistent read; for a key of another type under a record's name, the error
-- instead, as for a record that cannot be read.
local record_key, attempts_key, timeline_key, agent_servers = unpack(KEYS)

local now = clock()
local record = redis.pcall('HGETALL', record_key)
local attempts = redis.pcall('HGETALL', attempts_key)
local timeline = redis.pcall('LRANGE', timeline_key, 0, -1)
local wrong = record.err or attempts.err or timeline.err
if wrong then return {now, {'unreadable', wrong}, {}, {}} end
return {now, record, attempts, timeline, agent_servers and fresh_reports(agent_servers, now)}
