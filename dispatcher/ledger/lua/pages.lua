-- Reads pages of records from an index. Part of other scripts.

-- Compares byte by byte, as Redis sorts members of one score; Lua's own `<` depends on the locale.
local function before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

-- Returns {field, value, ...} of the fields that ARGV names from `first` on; nil where there is no
-- record, and empty where the key is of another type.
local function named_fields(key, first)
  local values = redis.pcall('HMGET', key, unpack(ARGV, first))
  if values.err then return {} end
  local pairs_of = {}
  for i, value in ipairs(values) do
    if value then
      pairs_of[#pairs_of + 1] = ARGV[first + i - 1]
      pairs_of[#pairs_of + 1] = value
    end
  end
  return #pairs_of > 0 and pairs_of or nil
end
