-- A replica says what it knows: its part of all counts, and its open reservations,
-- in pieces. With the last one it has a place in the generation, and with the last
-- replica's the generation is open. ARGV[8] is the replica's name, [9] says which try
-- it is, [10] the piece's number from 0, [11] whether it is the last; then records.
notice()
if gen ~= ARGV[5] then
  return answer('moved')
end
if m[5] then
  return answer(m[5] == ARGV[3] and 'done' or 'joined')
end
local name = redis.call('HGET', meta, 'name:' .. mark)
if name and name ~= ARGV[8] then
  return answer('clash')
end
local part = redis.call('HGET', meta, 'part:' .. mark)
local try, piece = ARGV[9], tonumber(ARGV[10])
if part then
  local of, next = string.match(part, '^(.-):(%d+)$')
  if of ~= try then
    begin('interrupted') -- an earlier try left a part of its part
    return answer('moved')
  elseif piece < tonumber(next) then
    return answer('ok')
  elseif piece > tonumber(next) then
    begin('interrupted')
    return answer('moved')
  end
elseif piece > 0 then
  return answer('moved')
else
  if tonumber(redis.call('HGET', meta, 'seats')) >= tonumber(ARGV[7]) then
    return answer('full')
  end
  redis.call('HINCRBY', meta, 'seats', 1)
  redis.call('HSET', meta, 'name:' .. mark, ARGV[8])
end

take(12)
if ARGV[11] ~= '1' then
  redis.call('HSET', meta, 'part:' .. mark, try .. ':' .. string.format('%d', piece + 1), 'now', now)
  return answer('ok')
end
redis.call('HDEL', meta, 'part:' .. mark)
redis.call('HSET', meta, 'boot:' .. mark, ARGV[3], 'seq:' .. mark, 0, 'seen:' .. mark, now, 'now', now)
seq = 0
if redis.call('HINCRBY', meta, 'members', 1) >= tonumber(ARGV[7]) and state == 'rebuilding' then
  redis.call('HSET', meta, 'state', 'open')
end
return answer('done')
