-- former owner, id of a key: gives the owner's records and their quota usage to the key. Returns their number, 'unknown'
-- if no key has this id, or 'taken' if the former owner is still a key.
local former, heir, known = ARGV[1], ARGV[2], NAMESPACE .. 'keys'
if redis.call('HEXISTS', known, heir) == 0 then return 'unknown' end
if redis.call('HEXISTS', known, former) == 1 then return 'taken' end
local count = 0
for _, kind in ipairs({'adapter', 'job'}) do
  local all = key('index', kind .. ':' .. former)
  for _, id in ipairs(redis.call('ZRANGE', all, 0, -1)) do
    local state = get(id, 'state')
    redis.call('ZREM', index(id, state), id)
    redis.call('HSET', key('record', id), 'key_id', heir)
    redis.call('ZADD', index(id, state), 0, id)
    if state == 'queued' then redis.call('SADD', key('waiting', kind), heir) end
    redis.call('ZADD', key('index', kind .. ':' .. heir), 0, id)
    local adapter = get(id, 'adapter')
    if adapter then
      redis.call('ZREM', key('index', kind .. ':' .. former .. ':' .. adapter), id)
      redis.call('ZADD', key('index', kind .. ':' .. heir .. ':' .. adapter), 0, id)
    end
    count = count + 1
  end
  redis.call('DEL', all)
end
for _, what in ipairs({'active', 'stored_bytes', 'work'}) do
  redis.call('HINCRBY', key('usage', heir), what, redis.call('HGET', key('usage', former), what) or 0)
end
redis.call('DEL', key('usage', former))
return count
