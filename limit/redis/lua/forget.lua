-- Gives a replica's place away: it is gone for good. What it reserved and used stays
-- counted. ARGV[8] is its mark. One that was seen within ten seconds lives.
notice()
local seen = tonumber(redis.call('HGET', meta, 'seen:' .. ARGV[8]) or 0)
local seat = redis.call('HGET', meta, 'name:' .. ARGV[8])
if not seat then
  return answer('unknown')
elseif seen + 10000000 > now then
  return answer('alive')
end
if redis.call('HGET', meta, 'boot:' .. ARGV[8]) then
  redis.call('HINCRBY', meta, 'members', -1)
end
redis.call('HINCRBY', meta, 'seats', -1)
for _, f in ipairs({'name:', 'boot:', 'seq:', 'seen:', 'part:'}) do
  redis.call('HDEL', meta, f .. ARGV[8])
end
return answer('ok')
