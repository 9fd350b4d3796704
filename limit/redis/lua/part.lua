-- A replica says what it knows: its part of all counts, and its open reservations,
-- in pieces. With the last one it has a place in the generation, and with the last
-- replica's the generation is open. ARGV[8] is the replica's name, [9] says which try
-- it is, [10] the piece's number from 0, [11] whether it is the last; then records:
--   C, count's id, window, ends of the period and of the next, until when its
--      breaker is open, number of slots, and for each its end and its count
--   R, reservation's id, how long it holds, number of holds, and for each: count's id, kind,
--      n, end of its slot, window, ends of the period and of the next, amount, breaker,
--      alerts
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

-- bound keeps the end of a slot on this clock's slots, and in the current one at
-- the latest, so that nothing stays for ever.
local function bound(c, e)
  if c.e2 == 0 then
    local width = math.max(math.floor(c.window / 60), 1)
    e = math.ceil(e / width) * width
  end
  return math.min(e, ending(c, now))
end

local at = 12
local function word()
  at = at + 1
  return ARGV[at - 1]
end
local function number()
  return tonumber(word())
end

local function count()
  local id, window, e1, e2 = word(), number(), number(), number()
  local c = counter(id, window, e1, e2)
  local b = number()
  if b > c.b and e2 > 0 then
    c.b, c.dirty = math.min(b, ending(c, now)), true
  end
  for _ = 1, number() do
    local e, n = number(), number()
    add(c, bound(c, e), n)
  end
end

local function reservation()
  local id, due, holds = word(), now + number(), {}
  for i = 1, number() do
    local h = {word(), word(), number(), number(), number(), number(), number(), number(), word(), word()}
    local c = counter(h[1], h[5], h[6], h[7])
    if h[2] == 'r' then
      h[4] = bound(c, h[4])
      add(c, h[4], h[3])
    else
      c.h, c.dirty = c.h + h[3], true
    end
    holds[i] = h
  end
  redis.call('HSET', own('open'), id, cmsgpack.pack(holds))
  redis.call('ZADD', own('due'), due, id)
end

while at <= #ARGV do
  if word() == 'C' then
    count()
  else
    reservation()
  end
end
save()
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
