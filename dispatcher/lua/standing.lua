-- KEYS: records. ARGV: the states in which a dispatch has ended, with commas between, [whose each is].
-- Returns the positions (from 1) of those that are not there (another client's record is not the one
-- that is meant), and of those that have ended.
local ends = {}
for state in string.gmatch(ARGV[1], '[^,]+') do ends[state] = true end
local missing, ended = {}, {}
for i, key in ipairs(KEYS) do
  local record = redis.pcall('HMGET', key, 'state', 'client_id')
  local state, client = record[1], record[2]  -- of a key that is no record: an error, and neither
  if not state or (client and ARGV[i + 1] and client ~= ARGV[i + 1]) then
    missing[#missing + 1] = i
  elseif ends[state] then
    ended[#ended + 1] = i
  end
end
return {missing, ended}
