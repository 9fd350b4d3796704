-- Reads counts. ARGV[8] and on are pairs of a count's id and window. Answers as reset
-- does, and changes nothing but what time has changed.
local why = standing()
if why then
  return answer(why)
end
local out = answer('ok')
for i = 8, #ARGV, 2 do
  local c = counter(ARGV[i], tonumber(ARGV[i + 1]), 0, 0)
  local n = #out
  out[n + 1], out[n + 2], out[n + 3], out[n + 4] = c.u, c.h, c.l, c.b
end
save()
return out
