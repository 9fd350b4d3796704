-- Makes a change with its record, all or nothing. KEYS[1] is {name}:control:meta; the
-- other keys carry its tag. ARGV: the store's id, the hash check, 'k' for a key or
-- 'o' for an override, its name or hash, the revision that the change rests on, the
-- object and the record as JSON; for a key its team and application, then the hashes
-- of its secrets.
local meta = KEYS[1]
local base = string.sub(meta, 1, -5)
local m = redis.call('HMGET', meta, 'id', 'check')
if m[1] ~= ARGV[1] then
  return {'lost'}
elseif m[2] and m[2] ~= ARGV[2] then
  return {'secret'}
end
local kind, name, was = ARGV[3], ARGV[4], tonumber(ARGV[5])
local objects = base .. (kind == 'k' and 'keys' or 'overrides')
local old = redis.call('HGET', objects, name)
local at = old and tonumber(string.match(old, '^(%d+) ')) or 0
if at ~= was then
  return {was == 0 and 'exists' or 'conflict'}
end
if kind == 'k' then
  for i = 10, #ARGV do
    local owner = redis.call('HGET', base .. 'hashes', ARGV[i])
    if owner and owner ~= name then
      return {'taken'}
    end
  end
  if old then
    local was = cjson.decode(string.match(old, '^%d+ (.*)$'))
    for _, secret in ipairs(was.secrets) do
      redis.call('HDEL', base .. 'hashes', secret.hash)
    end
    redis.call('ZREM', base .. 'names:team:' .. was.team, name)
    redis.call('ZREM', base .. 'names:application:' .. was.application, name)
  end
  for i = 10, #ARGV do
    redis.call('HSET', base .. 'hashes', ARGV[i], name)
  end
  redis.call('ZADD', base .. 'names', 0, name)
  redis.call('ZADD', base .. 'names:team:' .. ARGV[8], 0, name)
  redis.call('ZADD', base .. 'names:application:' .. ARGV[9], 0, name)
end
local revision = redis.call('HINCRBY', meta, 'revision', 1)
redis.call('HSET', meta, 'check', ARGV[2])
redis.call('HSET', objects, name, revision .. ' ' .. ARGV[6])
redis.call('ZADD', base .. 'changed', revision, kind .. name)
redis.call('RPUSH', base .. 'audit', ARGV[7])
return {'ok', revision}
