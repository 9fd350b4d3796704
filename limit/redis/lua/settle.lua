-- Ends a reservation. ARGV[8] is its id; [9] 'settle', 'release', which gives all back,
-- or 'void', which gives back what may have been reserved and keeps it from being
-- reserved yet: nobody knows whether it was. Then pairs of a count's id and what was
-- used of it; a count that is not named has used what was held.
--
-- Answers 1 if the reservation was there, or 0, and the alerts.
local why = standing()
if why then
  return answer(why)
end
local id, how = ARGV[8], ARGV[9]
local packed = redis.call('HGET', own('open'), id)
if packed then
  local by = {}
  for i = 10, #ARGV, 2 do
    by[ARGV[i]] = tonumber(ARGV[i + 1])
  end
  finish(id, packed, now, how == 'settle' and function(c) return by[c] end)
end
if how == 'void' then
  redis.call('SET', own('x:' .. id), '1', 'PX', 600000)
end
sweep(5)
save()
return answer('ok', packed and 1 or 0, unpack(alerts))
