-- Records of what a replica knows:
--   C, count's id, window, ends of the period and of the next, until when its
--      breaker is open, number of slots, and for each its end and its count
--   R, reservation's id, how long it holds, number of holds, and for each: count's id, kind,
--      n, end of its slot, window, ends of the period and of the next, amount, breaker,
--      alerts. One that is there already is given the holds that it does not have.

-- bound keeps the end of a slot on this clock's slots, and in the current one at
-- the latest, so that nothing stays for ever.
local function bound(c, e)
  if c.e2 == 0 then
    local width = math.max(math.floor(c.window / 60), 1)
    e = math.ceil(e / width) * width
  end
  return math.min(e, ending(c, now))
end

local at

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
  local id, lasts = word(), number()
  local there = redis.call('HGET', own('open'), id)
  local holds, has = there and cmsgpack.unpack(there) or {}, {}
  for _, h in ipairs(holds) do
    has[h[1]] = true
  end
  for _ = 1, number() do
    local h = {word(), word(), number(), number(), number(), number(), number(), number(), word(), word()}
    if not has[h[1]] then
      local c = counter(h[1], h[5], h[6], h[7])
      if h[2] == 'r' then
        h[4] = bound(c, h[4])
        add(c, h[4], h[3])
      else
        c.h, c.dirty = c.h + h[3], true
      end
      holds[#holds + 1] = h
    end
  end
  redis.call('HSET', own('open'), id, cmsgpack.pack(holds))
  redis.call('ZADD', own('due'), now + lasts, id)
end

-- take counts the records in ARGV from there on.
local function take(from)
  at = from
  while at <= #ARGV do
    if word() == 'C' then
      count()
    else
      reservation()
    end
  end
  save()
end
