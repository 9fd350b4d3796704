-- A process of a replica takes its place: an older one of the same replica is shut
-- out from now on. ARGV[8] is the replica's name.
notice()
if not m[5] then
  return answer('join')
end
if redis.call('HGET', meta, 'name:' .. mark) ~= ARGV[8] then
  return answer('clash')
end
seq = 0
redis.call('HSET', meta, 'boot:' .. mark, ARGV[3], 'seq:' .. mark, 0, 'seen:' .. mark, now, 'now', now)
return answer(state == 'open' and 'ok' or 'rebuilding')
