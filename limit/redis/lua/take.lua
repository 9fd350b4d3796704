-- Takes access log entries that others have left for the replica. ARGV[8] is how many
-- were dropped from the list so far, [9] how many more are done with, [10] how many are
-- read at most. Answers how many have been dropped in all, and the entries: they
-- stay until the next time. Dropping the same ones again has no effect.
local why = standing()
if why then
  return answer(why)
end
local list, at = base .. 'entries:' .. mark, own('taken:' .. mark)
local dropped = tonumber(redis.call('GET', at) or 0)
if ARGV[9] ~= '0' and dropped == tonumber(ARGV[8]) then
  redis.call('LTRIM', list, ARGV[9], -1)
  dropped = dropped + tonumber(ARGV[9])
  redis.call('SET', at, string.format('%d', dropped))
end
return answer('ok', dropped, unpack(redis.call('LRANGE', list, 0, tonumber(ARGV[10]) - 1)))
