-- Reads one page of the dispatches of several clients, newest first.
-- Returns {clock (ms), {id, {field, value, ...}, id, ...}, time and id to go on after, or empty}.
local of_clients = KEYS  -- their indexes
local record_prefix, limit = ARGV[1], tonumber(ARGV[2])
local most = tonumber(ARGV[3])                    -- so many are looked at
local after_score, after_id = ARGV[4], ARGV[5]    -- after these it goes on; "": from the newest
local since = ARGV[6] == '' and '-inf' or ARGV[6]  -- where to stop (ms)
local text = ARGV[7]  -- the room's name has it in it, or the id begins with it; "": any
local STATES = 9      -- so many as ARGV[8] says from here on; then the names of wanted fields
local first_field = STATES + tonumber(ARGV[8])
local states
for i = STATES, first_field - 1 do
  states = states or {}
  states[ARGV[i]] = true
end
local BATCH = 100

-- Returns the wanted fields of a record; nil where the record does not match.
local function fields_of(id)
  local key = record_prefix .. id
  if states or text ~= '' then
    local is = redis.pcall('HMGET', key, 'state', 'room_name')
    if not is[1] or (states and not states[is[1]]) then return nil end
    if text ~= '' and string.sub(id, 1, #text) ~= text
        and not string.find(is[2] or '', text, 1, true) then
      return nil
    end
  end
  local fields = named_fields(key, first_field)
  return fields and #fields > 0 and fields or nil
end

-- Each index is read in batches, from its newest; the newest of all heads comes next.
local max = after_score == '' and '+inf' or after_score
local function head(of)
  repeat
    if of.at > #of.batch then
      if of.last then return nil end
      of.batch = redis.call('ZREVRANGEBYSCORE', of.key, max, since, 'WITHSCORES',
        'LIMIT', of.offset, BATCH)
      of.offset, of.at, of.last = of.offset + BATCH, 1, #of.batch < 2 * BATCH
    end
    local id, score = of.batch[of.at], of.batch[of.at + 1]
    if id and (score ~= after_score or before(id, after_id)) then return id, score end
    of.at = of.at + 2
  until of.last and of.at > #of.batch
  return nil
end
local indexes = {}
for i, key in ipairs(of_clients) do
  indexes[i] = {key = key, batch = {}, at = 1, offset = 0, last = false}
end

local found, looked, last_id, last_score, more = {}, 0, '', '', false
while true do
  local newest, id, score
  for _, of in ipairs(indexes) do
    local its_id, its_score = head(of)
    if its_id and (not newest or tonumber(its_score) > tonumber(score)
        or its_score == score and before(id, its_id)) then
      newest, id, score = of, its_id, its_score
    end
  end
  if not newest then break end
  if #found == 2 * limit or looked == most then
    more = true
    break
  end
  newest.at = newest.at + 2
  looked, last_id, last_score = looked + 1, id, score
  local fields = fields_of(id)
  if fields then
    found[#found + 1] = id
    found[#found + 1] = fields
  end
end
local now = clock()
return {now, found, more and last_score or '', more and last_id or ''}
