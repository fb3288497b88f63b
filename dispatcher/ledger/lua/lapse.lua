-- An agent of a session is lost, says its own job or its agent server: its lease ends now, and a worker
-- is woken to look at once whether people are left.
-- Returns 1, or 0 when another job or generation serves the dispatch, or none.
local record, leases, queue = unpack(KEYS)
local id, generation, job_id, loss = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local wake = cjson.decode(ARGV[5])    -- `Wake.order`
local looked_at_ms = tonumber(ARGV[6])  -- after so long the sweeper wakes one if the message is lost

local is = redis.call('HMGET', record, 'generation', 'job_id', 'state')
local open = is[3] == 'joined' or is[3] == 'leaving'
if not open or is[1] ~= generation or is[2] ~= job_id then return 0 end
local now = clock()
redis.call('HSET', record, 'alive_till_ms', string.format('%.0f', now))
-- The first to tell knows best: a job tells what it has seen, its agent server that it is gone.
redis.call('HSETNX', record, 'loss', loss)
local message = celery_message(wake)
if message then
  redis.call('LPUSH', queue, message)
else
  looked_at_ms = 0
end
redis.call('ZADD', leases, 'XX', string.format('%.0f', now + looked_at_ms), id)
return 1
