-- KEYS: records. ARGV: the states in which a dispatch has ended.
-- Returns the positions (from 1) of those that are not there, and of those that have ended.
local ends = {}
for _, state in ipairs(ARGV) do ends[state] = true end
local missing, ended = {}, {}
for i, key in ipairs(KEYS) do
  local state = redis.pcall('HGET', key, 'state')  -- of a key that is no record: an error
  if not state then
    missing[#missing + 1] = i
  elseif ends[state] then
    ended[#ended + 1] = i
  end
end
return {missing, ended}
