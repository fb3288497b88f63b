-- Reads one page of a client's dispatches, newest first. Ids whose record has expired are dropped
-- from the index on the way.
-- Returns {clock (ms), {id, {field, value, ...}, id, ...}, time and id to go on after, or empty}.
local index = KEYS[1]
local record_prefix, state, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])  -- state "": any
local after_score, after_id = ARGV[4], ARGV[5]  -- after these it goes on; "": from the newest
local most = tonumber(ARGV[6])                  -- so many are looked at
local FIELDS = 7                                -- the names of the wanted fields, from here on
local last_score, last_id = after_score, after_id
local BATCH = 100

local function fields_of(id)
  local key = record_prefix .. id
  if state ~= '' then
    local is = redis.pcall('HGET', key, 'state')
    if is and is ~= state then return {} end
  end
  return named_fields(key, FIELDS)
end

local found, gone, looked, offset = {}, {}, 0, 0
local max, more = last_score == '' and '+inf' or last_score, false
repeat
  local batch = redis.call('ZREVRANGEBYSCORE', index, max, '-inf', 'WITHSCORES',
    'LIMIT', offset, BATCH)
  local full = #batch == 2 * BATCH
  for i = 1, #batch, 2 do
    local id, score = batch[i], batch[i + 1]
    if score ~= after_score or before(id, after_id) then
      looked, last_score, last_id = looked + 1, score, id
      local fields = fields_of(id)
      if not fields then
        gone[#gone + 1] = id
      elseif #fields > 0 then
        found[#found + 1] = id
        found[#found + 1] = fields
      end
      if #found == 2 * limit or looked == most then
        more = full or i + 2 <= #batch
        full = false
        break
      end
    end
  end
  offset = offset + BATCH
until not full
for _, id in ipairs(gone) do redis.call('ZREM', index, id) end
local now = clock()
return {now, found, more and last_score or '', more and last_id or ''}
