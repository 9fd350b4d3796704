-- Says that the replica lives, and asks for more time for reservations. ARGV[8] is
-- how long they hold, then come their ids. Answers what is known of the
-- deployment, as pairs.
local why = standing()
if not why or why == 'rebuilding' then
  redis.call('HSET', meta, 'seen:' .. mark, now, 'now', now)
end
if not why then
  for i = 9, #ARGV do
    redis.call('ZADD', own('due'), 'XX', now + tonumber(ARGV[8]), ARGV[i])
  end
  sweep(100)
  save()
end
return answer(why or 'ok', 'clock', string.format('%d', clock), unpack(redis.call('HGETALL', meta)))
