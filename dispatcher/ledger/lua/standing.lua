-- Returns the positions (from 1) of the records that are missing (another client's record counts as
-- missing), and of those that have ended, and the ledger's clock in ms.
local records = KEYS
local client_ids = ARGV  -- of each record, or none

local missing, ended = {}, {}
for i, key in ipairs(records) do
  local record = redis.pcall('HMGET', key, 'state', 'client_id')
  local state, client = record[1], record[2]  -- of a key that is no record: an error, and neither
  local meant = client_ids[i]
  if not state or (client and meant and client ~= meant) then
    missing[#missing + 1] = i
  elseif TERMINAL[state] then
    ended[#ended + 1] = i
  end
end
return {missing, ended, clock()}
