-- Makes a change with its record, all or nothing. ARGV[3] and on: the change's token,
-- the record as JSON, and 'k' for a key, 'o' for an override, 'r' for a rollout or 'n' for a record
-- alone; with an object the hash check, its name or hash, the revision that the
-- change rests on and the object as JSON; for a key its team and application, then
-- the hashes of its secrets. What can fail is before the first write.
local stands = standing()
if stands ~= 'ok' then
  return {stands, revision}
end
local token, record, kind, check, name, object = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[9]
if kind == 'n' then
  redis.call('RPUSH', base .. 'audit', record)
  return {'ok', revision}
end
local held = redis.call('GET', base .. 'check')
if held and held ~= check then
  return {'secret', revision}
end
local objects = base .. ({k = 'keys', o = 'overrides', r = 'rollouts'})[kind]
local old = redis.call('HGET', objects, name)
local at, was = old and tonumber(string.match(old, '^(%d+) ')) or 0, tonumber(ARGV[8])
if at ~= was then
  return {was == 0 and 'exists' or 'conflict', revision}
end

-- index adds a key to the lists of names, or takes it out.
local function index(command, team, application, ...)
  if team ~= '' then
    redis.call(command, base .. 'names:team:' .. team, ...)
  end
  if application ~= '' then
    redis.call(command, base .. 'names:application:' .. application, ...)
  end
end

if kind == 'k' then
  local before = old and cjson.decode(string.match(old, '^%d+ (.*)$'))
  for i = 12, #ARGV do
    local owner = redis.call('HGET', base .. 'hashes', ARGV[i])
    if owner and owner ~= name then
      return {'taken', revision}
    end
  end
  if before then
    for _, secret in ipairs(before.secrets) do
      redis.call('HDEL', base .. 'hashes', secret.hash)
    end
    index('ZREM', before.team, before.application, name)
  end
  for i = 12, #ARGV do
    redis.call('HSET', base .. 'hashes', ARGV[i], name)
  end
  redis.call('ZADD', base .. 'names', 0, name)
  index('ZADD', ARGV[10], ARGV[11], 0, name)
end
revision = redis.call('RPUSH', history, token)
redis.call('SETNX', base .. 'check', check)
redis.call('HSET', objects, name, revision .. ' ' .. object)
if kind == 'r' then
  redis.call('DEL', base .. 'tally:' .. name)
else
  redis.call('ZADD', base .. 'changed', revision, kind .. name)
end
redis.call('RPUSH', base .. 'audit', record)
return {'ok', revision}
