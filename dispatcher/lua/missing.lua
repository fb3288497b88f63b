-- KEYS: records. Returns the positions (from 1) of those that are not there.
local missing = {}
for i, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 0 then missing[#missing + 1] = i end
end
return missing
