-- KEYS: parked, record, then every list that a record can be on. ARGV: id, reason, prefix of the
-- keys of open sessions (whose the record is, only the record says).
for i = 3, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
if redis.call('TYPE', KEYS[2]).ok == 'hash' then
  local client = redis.call('HGET', KEYS[2], 'client_id')
  if client then redis.call('ZREM', ARGV[3] .. client, ARGV[1]) end
end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
