-- KEYS: record, attempts, timeline, and agent servers for who wants them, too. Returns them, and
-- Redis's clock in ms, in one consistent look; of what is something else under a record's name, the
-- error instead, as a record that cannot be read.
local now = clock()
local record, attempts, timeline = redis.pcall('HGETALL', KEYS[1]), redis.pcall('HGETALL', KEYS[2]),
  redis.pcall('LRANGE', KEYS[3], 0, -1)
local wrong = record.err or attempts.err or timeline.err
if wrong then return {now, {'unreadable', wrong}, {}, {}} end
return {now, record, attempts, timeline, KEYS[4] and fresh_reports(KEYS[4], now)}
