-- Adds to the counters of agent servers, each numbered batch of a reporter once, however often it
-- is sent. Returns 1, or 0 when this batch has been counted before.
local index, counted = KEYS[1], KEYS[2]  -- counted: the reporter's last batch
local TOTALS = 3                         -- the hashes of totals from here on
local number, increments = ARGV[1], cjson.decode(ARGV[2])  -- one object for each hash

if tonumber(number) <= tonumber(redis.call('GET', counted) or '0') then return 0 end
redis.call('SET', counted, number, 'EX', 86400)
local now = clock()
for i, counts in ipairs(increments) do
  write_agent_counts(index, KEYS[TOTALS + i - 1], counts, now)
end
return 1
