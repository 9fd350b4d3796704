-- Somebody takes the word that the replicas that are missing are gone for good, and
-- that what they reserved and used is not counted. Answers their number.
notice()
if not m[5] or m[5] ~= ARGV[3] then
  return answer('join')
end
local missing = math.max(tonumber(ARGV[7]) - tonumber(redis.call('HGET', meta, 'members')), 0)
if state == 'rebuilding' then
  redis.call('HSET', meta, 'state', 'open', 'now', now)
end
return answer('ok', missing)
