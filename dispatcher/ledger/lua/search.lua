-- Reads one page of the dispatches of several clients, newest first. Ids whose record has expired
-- are dropped from the indexes on the way.
-- Returns {clock (ms), {id, {field, value, ...}, id, ...}, time and id to go on after, or empty}.
local of_clients = KEYS  -- their indexes
local limit, most = tonumber(ARGV[1]), tonumber(ARGV[2])  -- most: so many are looked at
local after_score, after_id = ARGV[3], ARGV[4]     -- after these it goes on; "": from the newest
local since = ARGV[5] == '' and '-inf' or ARGV[5]  -- where to stop (ms)
local text = ARGV[6]  -- the room's name has it in it, or the id begins with it; "": any
local STATES = 8      -- so many as ARGV[7] says from here on; then the names of wanted fields
local first_field = STATES + tonumber(ARGV[7])
local states
for i = STATES, first_field - 1 do
  states = states or {}
  states[ARGV[i]] = true
end
local BATCH = 100

-- Compares byte by byte, as Redis sorts members of one score; Lua's own `<` depends on the locale.
local function before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

local function matches(id, state, room_name)
  if states and not states[state] then return false end
  return string.sub(id, 1, #text) == text or string.find(room_name or '', text, 1, true)
end

-- Returns the wanted fields of a record; none where it does not match or is of another type, and
-- nil where there is no record.
local function fields_of(id)
  local key = RECORD_PREFIX .. id
  if states or text ~= '' then
    local is = redis.pcall('HMGET', key, 'state', 'room_name')
    if is[1] and not matches(id, is[1], is[2]) then return {} end
  end
  local values = redis.pcall('HMGET', key, unpack(ARGV, first_field))
  if values.err then return {} end
  local fields = {}
  for i, value in ipairs(values) do
    if value then
      fields[#fields + 1] = ARGV[first_field + i - 1]
      fields[#fields + 1] = value
    end
  end
  return #fields > 0 and fields or nil
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
  indexes[i] = {key = key, batch = {}, at = 1, offset = 0, last = false, gone = {}}
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
  if not fields then
    table.insert(newest.gone, id)
  elseif #fields > 0 then
    found[#found + 1] = id
    found[#found + 1] = fields
  end
end
for _, of in ipairs(indexes) do
  for _, id in ipairs(of.gone) do redis.pcall('ZREM', of.key, id) end
end
local now = clock()
return {now, found, more and last_score or '', more and last_id or ''}
