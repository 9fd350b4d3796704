-- Gives back all that was used of counts, and closes their breakers; what is
-- reserved stays. ARGV[8] and on are pairs of a count's id and window. Answers for each
-- what was used and reserved, the end of its last slot and until when its
-- breaker was open.
local why = standing()
if why then
  return answer(why)
end
local out = answer('ok')
for i = 8, #ARGV, 2 do
  local c = counter(ARGV[i], tonumber(ARGV[i + 1]), 0, 0)
  local n = #out
  out[n + 1], out[n + 2], out[n + 3], out[n + 4] = c.u, c.h, c.l, c.b
  redis.call('UNLINK', c.key)
  c.u, c.f, c.l, c.b, c.a, c.t = 0, 0, 0, 0, 0, ','
  c.known, c.dirty = false, true
end
save()
return out
