-- Returns the positions (from 1) of the records that are missing (another client's record counts as
-- missing), and of those that have ended.
local records, end_states = KEYS, ARGV[1]  -- the states with commas between
local OF_CLIENTS = 2                       -- the client of each record, from here on, if given

local ends = {}
for state in string.gmatch(end_states, '[^,]+') do ends[state] = true end
local missing, ended = {}, {}
for i, key in ipairs(records) do
  local record = redis.pcall('HMGET', key, 'state', 'client_id')
  local state, client = record[1], record[2]  -- of a key that is no record: an error, and neither
  local meant = ARGV[OF_CLIENTS + i - 1]
  if not state or (client and meant and client ~= meant) then
    missing[#missing + 1] = i
  elseif ends[state] then
    ended[#ended + 1] = i
  end
end
return {missing, ended}
