-- What all scripts begin with. Each is one atomic step of the ledger. Times are
-- microseconds since 1970 and, like all numbers here, whole doubles below 2^53.
--
-- KEYS[1] is {name}:meta. The other keys are made from it and from the generation,
-- and carry the same tag, so that all are in one slot of a cluster:
--   {name}:GEN:c:ID   a count. u used, h reserved, f and l the ends of its first and
--                     last slot, b until when its breaker is open, t the alerts that
--                     were told and a until when they are not told again; and for
--                     each slot its end, with what was counted until then
--   {name}:GEN:open   reservations, by id;  {name}:GEN:due  their deadlines
--   {name}:GEN:u:LIMIT  which users of a limit have a count of their own
--   {name}:GEN:x:ID   a reservation that was given up before it came
--
-- ARGV[1] is empty, or, in tests, the key that holds the time and the server to be
-- believed in;
-- [2] the replica's mark, [3] which of its processes it is, [4] how many of its
-- scripts have been acknowledged, and the last time that it was told, [5] in which
-- generation, [6] the name of the next generation, [7] how many replicas there are. A
-- script's own begin at [8].
local meta = KEYS[1]
local base = string.sub(meta, 1, -5)
local mark = ARGV[2]
local m = redis.call('HMGET', meta, 'gen', 'state', 'run', 'now', 'boot:' .. mark, 'seq:' .. mark)
local gen, state = m[1], m[2]
local clock, run
if ARGV[1] == '' then
  local t = redis.call('TIME')
  clock = t[1] * 1000000 + t[2]
  run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
else
  clock, run = string.match(redis.call('GET', ARGV[1]), '^(%d+) (.+)$')
  clock = tonumber(clock)
end
-- Time never goes back, whatever clock the server has that is asked now, and
-- whatever it has forgotten: it stands still until the clock has caught up. Where
-- that takes more than an hour, somebody may say that the earlier time was wrong: see
-- accept.lua.
local hour = 3600 * 1000000
local acknowledged, last = string.match(ARGV[4], '^(%d+) (%d+)$')
acknowledged, last = tonumber(acknowledged), tonumber(last)
local now = math.max(clock, tonumber(m[4] or 0))
local ahead = last > now and last <= clock + hour
if ahead then
  now = last
end
local seq = tonumber(m[6] or 0)

local function answer(status, ...)
  if status ~= 'ok' and gen then
    redis.call('HSET', meta, 'now', now) -- what was told, or learnt
  end
  return {status, now, gen or '', seq, ...}
end

-- begin starts a generation that knows nothing: every replica has to say what it
-- knows before anything is reserved.
local function begin(why)
  if gen then
    redis.call('RPUSH', base .. 'old', gen)
  end
  redis.call('DEL', meta)
  gen, state, seq = ARGV[6], 'rebuilding', 0
  m = {gen, state, run, now, false, false}
  redis.call('HSET', meta, 'gen', gen, 'state', state, 'run', run, 'now', now, 'why', why, 'members', 0, 'seats', 0)
end

-- notice begins anew when something that was acknowledged may be missing: nothing
-- is there, another server answers than the one that holds the counts (a promoted
-- replica may lack the last writes, and so may a server that was started again),
-- or the replica had more scripts acknowledged than are known.
local function notice()
  if not gen then
    begin('empty')
  elseif m[3] ~= run then
    begin('server')
  elseif m[5] == ARGV[3] and gen == ARGV[5] and seq < acknowledged then
    begin('behind')
  elseif ahead then -- what was counted since would leave early
    begin('time')
  end
end

-- standing tells why the replica cannot go on, and counts the script if it can.
local function standing()
  notice()
  if not m[5] then
    return 'join'
  elseif m[5] ~= ARGV[3] then
    return 'fenced'
  elseif gen ~= ARGV[5] then
    return 'moved'
  elseif state ~= 'open' then
    return 'rebuilding'
  end
  seq = seq + 1
  redis.call('HSET', meta, 'seq:' .. mark, seq, 'now', now)
end

local function own(name)
  return base .. gen .. ':' .. name
end

local counters, alerts = {}, {}

-- ending is when the slot ends that holds the time at. A calendar has the ends of
-- the current and of the next period; later ones are taken to be as long.
local function ending(c, at)
  if c.e2 > 0 then
    local e = c.e1
    if e <= at then
      e = c.e2
    end
    while e <= at do
      e = e + c.e2 - c.e1
    end
    return e
  end
  local width = math.max(math.floor(c.window / 60), 1)
  return at - at % width + width
end

-- expire drops the slots that are past.
local function expire(c)
  local all, gone = redis.call('HGETALL', c.key), {}
  c.f, c.l = 0, 0
  for i = 1, #all, 2 do
    local e = tonumber(all[i])
    if e and e + c.window <= now then
      c.u = c.u - tonumber(all[i + 1])
      gone[#gone + 1] = all[i]
    elseif e then
      c.f = c.f == 0 and e or math.min(c.f, e)
      c.l = math.max(c.l, e)
    end
  end
  for i = 1, #gone, 1000 do
    redis.call('HDEL', c.key, unpack(gone, i, math.min(i + 999, #gone)))
  end
  c.dirty = true
end

-- counter reads a count, once a script.
local function counter(id, window, e1, e2)
  local c = counters[id]
  if c then
    return c
  end
  c = {id = id, key = own('c:' .. id), window = window, e1 = e1, e2 = e2}
  counters[id] = c
  local v = redis.call('HMGET', c.key, 'u', 'h', 'f', 'l', 'b', 'a', 't')
  c.known = v[1]
  c.u, c.h, c.f = tonumber(v[1] or 0), tonumber(v[2] or 0), tonumber(v[3] or 0)
  c.l, c.b, c.a, c.t = tonumber(v[4] or 0), tonumber(v[5] or 0), tonumber(v[6] or 0), v[7] or ','
  c.was = {u = c.u, h = c.h, f = c.f, l = c.l, b = c.b, a = c.a, t = c.t}
  if c.f > 0 and c.f + window <= now then
    expire(c)
  end
  return c
end

-- useful is until when anything of a count matters, if nothing is reserved.
local function useful(c)
  local till = math.max(c.b, c.a)
  if c.l > 0 then
    till = math.max(till, c.l + c.window)
  end
  return till
end

-- save writes what changed. A count goes by itself when it is of no use any more.
local fields = {'u', 'h', 'f', 'l', 'b', 'a', 't'}
local function write(c)
  local args, n, was, till = {c.key}, 1, c.was, useful(c)
  if c.h <= 0 and till <= now then
    redis.call('UNLINK', c.key)
    return
  end
  for _, f in ipairs(fields) do
    if not c.known or c[f] ~= was[f] then
      args[n + 1], args[n + 2] = f, c[f]
      n = n + 2
    end
  end
  if n > 1 then
    redis.call('HSET', unpack(args))
  end
  if c.h > 0 then
    if c.known and was.h <= 0 then
      redis.call('PERSIST', c.key)
    end
  elseif not c.known or was.h > 0 or c.l ~= was.l or c.b ~= was.b or c.a ~= was.a then
    redis.call('PEXPIRE', c.key, math.ceil((till - clock) / 1000) + 1000) -- the server's clock drops it
  end
end

local function save()
  for _, c in pairs(counters) do
    if c.dirty then
      write(c)
    end
  end
end

-- add counts n in the slot that ends at e, unless that has left.
local function add(c, e, n)
  if n == 0 or e + c.window <= now then
    return
  end
  redis.call('HINCRBY', c.key, e, n)
  c.u = c.u + n
  c.f = c.f == 0 and e or math.min(c.f, e)
  c.l = math.max(c.l, e)
  c.dirty = true
end

-- remove takes back n that was counted in the slot that ends at e.
local function remove(c, e, n)
  local there = tonumber(redis.call('HGET', c.key, e) or 0)
  n = math.min(n, there)
  if n == 0 then
    return
  end
  c.u, c.dirty = c.u - n, true
  if n < there then
    redis.call('HINCRBY', c.key, e, -n)
    return
  end
  redis.call('HDEL', c.key, e)
  if e == c.f or e == c.l then
    expire(c)
  end
end

-- alert tells of a percentage once in a period or a window, and of none below one that
-- was told.
local function alert(c, percent)
  if c.a <= now then
    c.t = ','
  end
  for told in string.gmatch(c.t, '%d+') do
    if tonumber(told) >= tonumber(percent) then
      return
    end
  end
  c.t = c.t .. percent .. ','
  c.a = c.e2 > 0 and ending(c, now) or now + math.max(c.window, 1000000)
  c.dirty = true
  local n = #alerts
  alerts[n + 1], alerts[n + 2], alerts[n + 3], alerts[n + 4] = c.id, tonumber(percent), c.u, c.a
end

local function opened(c)
  return c.b > now
end

-- exhaust opens the breaker, for limits that have one, until the period ends.
local function exhaust(c, breaker)
  if breaker == '1' and c.e2 > 0 and not opened(c) then
    c.b, c.dirty = ending(c, now), true
  end
end

-- used is called when n more of a limit was used. Its alerts are 'PERCENT:COUNT,…'.
local function used(c, n, amount, breaker, list)
  if n == 0 then
    return
  end
  if c.u >= amount then
    exhaust(c, breaker)
  end
  for percent, at in string.gmatch(list, '(%d+):(%d+)') do
    if c.u >= tonumber(at) then
      alert(c, percent)
    end
  end
end

-- finish ends a reservation as of the time at: spent tells what was used of a count,
-- nil that it is as much as was held; without it everything is given back.
local function finish(id, packed, at, spent)
  local holds = cmsgpack.unpack(packed)
  redis.call('HDEL', own('open'), id)
  redis.call('ZREM', own('due'), id)
  for _, h in ipairs(holds) do
    local kind, n = h[2], h[3]
    local c = counter(h[1], h[5], h[6], h[7])
    if kind == 'r' then
      if not spent then
        remove(c, h[4], n)
      end
    else
      c.h, c.dirty = math.max(c.h - n, 0), true
      if kind == 't' and spent then
        n = spent(h[1]) or n
        add(c, ending(c, at), n)
        used(c, n, h[8], h[9], h[10])
      end
    end
  end
end

-- held is what finish takes for: all was used that was held.
local function held() end

-- sweep ends the reservations whose replica has not asked for more time, as of
-- then, a few at a time.
local function sweep(most)
  local late = redis.call('ZRANGEBYSCORE', own('due'), '-inf', now, 'WITHSCORES', 'LIMIT', 0, most)
  for i = 1, #late, 2 do
    local packed = redis.call('HGET', own('open'), late[i])
    if packed then
      finish(late[i], packed, tonumber(late[i + 1]), held)
    else
      redis.call('ZREM', own('due'), late[i])
    end
  end
end
