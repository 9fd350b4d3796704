-- Somebody takes the word that the replicas that are missing are gone for good, and
-- that what they reserved and used is not counted; or, where time stands still because
-- the server's clock is more than an hour behind what it was, that it was wrong before:
-- then a generation begins with the clock as it is. Answers how many are missing.
notice()
if state == 'open' and now - clock > hour then
  now = clock
  begin('asked')
  return answer('ok', 0)
end
local members = tonumber(redis.call('HGET', meta, 'members'))
if members == 0 then
  return answer('join') -- nobody has said anything yet
end
local missing = math.max(tonumber(ARGV[7]) - members, 0)
if state == 'rebuilding' then
  redis.call('HSET', meta, 'state', 'open', 'now', now)
end
return answer('ok', missing)
