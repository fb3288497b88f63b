-- Ends an agent's lease now, because its job or its agent server reports the agent lost, and wakes
-- a worker to look at once whether people are left.
-- Returns 1, or 0 when another job or generation serves the dispatch, or none.
local record, leases, queue = unpack(KEYS)
local id, generation, job_id, loss = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local wake = cjson.decode(ARGV[5])    -- `Wake.order`
local looked_at_ms = tonumber(ARGV[6])  -- if the message is lost, the sweeper wakes a worker then
local has_met = ARGV[7] == '1'        -- a person, at any time

local is = redis.call('HMGET', record, 'generation', 'job_id', 'state')
local open = is[3] == 'joined' or is[3] == 'leaving'
if not open or is[1] ~= generation or is[2] ~= job_id then return 0 end
local now = clock()
redis.call('HSET', record, 'alive_till_ms', string.format('%.0f', now))
-- The first report is the best: a job reports what it has seen, its agent server only that it is
-- gone.
redis.call('HSETNX', record, 'loss', loss)
-- The agent may have met people while it could not report.
if has_met then redis.call('HSET', record, 'person_seen', '1') end
local message = celery_message(wake)
if message then
  redis.call('LPUSH', queue, message)
else
  looked_at_ms = 0
end
redis.call('ZADD', leases, 'XX', string.format('%.0f', now + looked_at_ms), id)
return 1
