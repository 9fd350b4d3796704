-- A replica says what it knows beside what it has said: of a limit that is new, say.
-- ARGV[8] names what is said, so that it counts once; [9] and on are records.
local why = standing()
if why then
  return answer(why)
end
if redis.call('SET', own('said:' .. mark .. ':' .. ARGV[8]), '1', 'NX', 'PX', 86400000) then
  take(9)
end
return answer('ok')
