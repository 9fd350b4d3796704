-- Reserves what a request wants of all counts, or nothing. ARGV[8] is 'reserve', or
-- 'check' or 'look', which hold nothing; [9] the id, [10] how long the reservation
-- holds, [11] how many users of a limit have a count of their own, [12] the number k
-- of options, then for each count: id, id for users beyond that number or '', limit's
-- name, kind (r requests, c concurrency, t the rest), whether it binds, amount, window,
-- start and end of the period now and end of the next (0 without), breaker, alerts,
-- and for each option what is wanted and what has to be free.
--
-- Answers the option that was admitted, or 0, and the first count that only
-- reports and had no room, or 0; for each count used, reserved, the end of its last
-- slot, until when its breaker is open and after how long there would be room (-1 if
-- it did not refuse, -2 if there never is); then the alerts.
local why = standing()
if why then
  return answer(why)
end
local mode, id, k = ARGV[8], ARGV[9], tonumber(ARGV[12])

if mode == 'reserve' and redis.call('EXISTS', own('x:' .. id)) == 1 then
  return answer('void')
end

local width = 12 + 2 * k
for i = 13, #ARGV, width do
  local s, e2 = tonumber(ARGV[i + 7]), tonumber(ARGV[i + 9])
  if e2 > 0 and (now < s or now >= e2) then
    return answer('stale') -- the replica's clock is another: it knows better now
  end
end

-- counted finds the count of one demand. A user beyond the bound counts with others.
local most = tonumber(ARGV[11])
local function counted(i, d)
  local window, e1, e2 = tonumber(ARGV[i + 6]), tonumber(ARGV[i + 8]), tonumber(ARGV[i + 9])
  local c = counter(ARGV[i], window, e1, e2)
  if ARGV[i + 1] == '' then
    return c
  end
  local users = own('u:' .. ARGV[i + 2])
  if not c.known and not redis.call('ZSCORE', users, ARGV[i]) and redis.call('ZCARD', users) >= most then
    redis.call('ZREMRANGEBYSCORE', users, '-inf', now)
    if redis.call('ZCARD', users) >= most then
      return counter(ARGV[i + 1], window, e1, e2)
    end
  end
  d.users = users
  return c
end

local demands = {}
for i = 13, #ARGV, width do
  local d = {kind = ARGV[i + 3], binds = ARGV[i + 4] == '1', amount = tonumber(ARGV[i + 5]),
    breaker = ARGV[i + 10], alerts = ARGV[i + 11], n = {}, needs = {}}
  for o = 1, k do
    d.n[o], d.needs[o] = tonumber(ARGV[i + 10 + 2 * o]), tonumber(ARGV[i + 11 + 2 * o])
  end
  d.c = counted(i, d)
  demands[#demands + 1] = d
end

-- free is what is left; negative while there is a debt.
local function free(d)
  return d.amount - d.c.u - d.c.h
end

local function fits(o)
  for _, d in ipairs(demands) do
    if d.binds and d.n[o] > 0 and (opened(d.c) or d.needs[o] > free(d)) then
      return false
    end
  end
  return true
end

-- wait is how long it takes until need more is free.
local function wait(d, need)
  local c = d.c
  if opened(c) then
    return c.b - now
  end
  local all, slots = redis.call('HGETALL', c.key), {}
  for i = 1, #all, 2 do
    local e = tonumber(all[i])
    if e then
      slots[#slots + 1] = {e, tonumber(all[i + 1])}
    end
  end
  table.sort(slots, function(a, b) return a[1] < b[1] end)
  for _, slot in ipairs(slots) do
    need = need - slot[2]
    if need <= 0 then
      return slot[1] + c.window - now
    end
  end
  return math.max(math.floor(c.window / 10), 1000000)
end

-- refuse judges one count of a request that is not admitted with any option.
local function refuse(d)
  local n, left = d.n[k], math.max(free(d), 0)
  if not d.binds or n == 0 or n <= left and not opened(d.c) then
    return -1
  end
  if n > d.amount then
    return -2
  end
  local w = wait(d, n - free(d)) -- a debt has to leave first
  if d.c.h == 0 and left < math.max(math.floor(d.amount / 100), 1) then
    exhaust(d.c, d.breaker)
    if string.find(',' .. d.alerts, ',100:', 1, true) then
      alert(d.c, '100')
    end
  end
  return w
end

local function hold(option)
  local was = redis.call('HGET', own('open'), id)
  if was then
    finish(id, was, now, held) -- the id comes again: nothing is forgotten
  end
  local holds = {}
  for i, d in ipairs(demands) do
    local c, n, slot = d.c, d.n[option], 0
    if d.kind == 'r' then
      slot = ending(c, now)
      add(c, slot, n)
      used(c, n, d.amount, d.breaker, d.alerts)
    else
      c.h, c.dirty = c.h + n, true
    end
    holds[i] = {c.id, d.kind, n, slot, c.window, c.e1, c.e2, d.amount, d.breaker, d.alerts}
    if d.users then
      local till = now + math.max(c.window, 1000000) + tonumber(ARGV[10])
      if c.e2 > 0 then
        till = c.e2
      end
      redis.call('ZADD', d.users, till, c.id)
      redis.call('PEXPIRE', d.users, math.ceil((till - clock) / 1000) + 1000)
    end
  end
  redis.call('HSET', own('open'), id, cmsgpack.pack(holds))
  redis.call('ZADD', own('due'), now + tonumber(ARGV[10]), id)
end

local admitted, reported = 0, 0
if mode ~= 'look' then
  for o = 1, k do
    if fits(o) then
      admitted = o
      break
    end
  end
end
local waits = {}
for i, d in ipairs(demands) do
  waits[i] = -1
  if admitted > 0 then
    if reported == 0 and not d.binds and d.n[admitted] > math.max(free(d), 0) then
      reported = i
    end
  elseif mode ~= 'look' then
    waits[i] = refuse(d)
  end
end
if admitted > 0 and mode == 'reserve' and #demands > 0 then
  hold(admitted)
end
local out = answer('ok', admitted, reported)
for i, d in ipairs(demands) do
  local c, at = d.c, #out
  out[at + 1], out[at + 2], out[at + 3], out[at + 4], out[at + 5] = c.u, c.h, c.l, c.b, waits[i]
end
sweep(5)
save()
for _, a in ipairs(alerts) do
  out[#out + 1] = a
end
return out
