-- Adds to the counters of agent servers, each numbered batch of a reporter once, however often it is
-- sent. KEYS: index, last batch of the reporter, then hashes of totals.
-- ARGV: number of the batch, increments (JSON: one object for each hash). Returns 1, or 0 when this
-- batch has been counted before.
local number = tonumber(ARGV[1])
if number <= tonumber(redis.call('GET', KEYS[2]) or '0') then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'EX', 86400)
local now = clock()
for i, counts in ipairs(cjson.decode(ARGV[2])) do
  write_agent_counts(KEYS[1], KEYS[i + 2], counts, now)
end
return 1
