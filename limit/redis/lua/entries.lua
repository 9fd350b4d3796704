-- Leaves access log entries for the replicas that decided about them. KEYS[1] is
-- {name}:meta; ARGV[1] is how many may wait for one, [2] for how long, in milliseconds;
-- then pairs of a replica's mark and an entry. Answers how many were left.
local base, n = string.sub(KEYS[1], 1, -5), 0
for i = 3, #ARGV, 2 do
  local list = base .. 'entries:' .. ARGV[i]
  if redis.call('LLEN', list) < tonumber(ARGV[1]) then
    redis.call('RPUSH', list, ARGV[i + 1])
    redis.call('PEXPIRE', list, ARGV[2])
    n = n + 1
  end
end
return n
