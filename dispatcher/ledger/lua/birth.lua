-- Has Redis lost what it held? A mark that is written once tells: with the data, the mark is gone.
-- Returns {mark, 1 if it is another one than before}. Each loss is counted once.
local birth, metrics = unpack(KEYS)
local seen, fresh = ARGV[1], ARGV[2]  -- the mark as last seen (empty: never), one to write

local mark = redis.call('GET', birth)
if not mark then
  mark = fresh
  redis.call('SET', birth, mark)
end
if seen == '' or seen == mark then return {mark, 0} end
if redis.call('HSETNX', metrics, 'data_lost_after:' .. seen, mark) == 1 then
  redis.call('HINCRBY', metrics, 'data_losses', 1)
end
return {mark, 1}
