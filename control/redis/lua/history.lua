-- Begins each script. The history is a list with a token for each change, the oldest
-- first: what a caller has seen of it is how many changes there were and the token of
-- the last. KEYS[1] is {name}:control:history; the other keys carry its tag.
-- ARGV[1] and ARGV[2] are what the caller has seen, 0 and '' before the first change.
local history = KEYS[1]
local base = string.sub(history, 1, -8)
local revision = redis.call('LLEN', history)

-- standing is 'ok' while what the caller has seen is a part of the history.
local function standing()
  local seen = tonumber(ARGV[1])
  if seen == 0 then
    return 'ok'
  elseif revision == 0 then
    return 'empty'
  elseif revision < seen then
    return 'older'
  elseif redis.call('LINDEX', history, seen - 1 - revision) ~= ARGV[2] then
    return 'another'
  end
  return 'ok'
end
