-- Counts a value in a histogram, for `counting.lua`. Part of other scripts.

local function observe(counts, name, value)
  local upper = 'inf'
  for _, bound in ipairs(BOUNDS[name]) do
    if value <= bound then
      upper = bound
      break
    end
  end
  add(counts, name .. ':' .. upper, 1)
  add(counts, name .. ':sum', math.max(0, value))
end
