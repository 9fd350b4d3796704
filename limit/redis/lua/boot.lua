-- A process of a replica takes its place: an older one of the same replica is shut
-- out from now on. ARGV[8] is the replica's name, [9] the process that it takes the
-- place of, or '' to be told which that is: what an older process asked for, and what
-- comes late, must not shut this one out.
notice()
if not m[5] then
  return answer('join')
elseif redis.call('HGET', meta, 'name:' .. mark) ~= ARGV[8] then
  return answer('clash')
elseif m[5] ~= ARGV[9] then
  return answer('taken', m[5])
end
seq = 0
redis.call('HSET', meta, 'boot:' .. mark, ARGV[3], 'seq:' .. mark, 0, 'seen:' .. mark, now, 'now', now)
return answer(state == 'open' and 'ok' or 'rebuilding')
