-- id, kind, key_id, request, notes, stored_bytes, idempotency key or '', fingerprint, seconds, max_active, max_stored,
-- max_records, the adapter that a job needs or ''.
-- What became of it, and the record: one answer, so that nobody who has it needs to ask again.
local id, kind, key_id, bytes = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[6])
local remembered = key('idempotency', key_id .. ':' .. ARGV[7])

if ARGV[7] ~= '' then
  local entry = redis.call('GET', remembered)
  if entry then
    local fingerprint, earlier = string.match(entry, '^(%S+) (%S+)$')
    if fingerprint ~= ARGV[8] then return {'conflict', earlier} end
    if redis.call('EXISTS', key('record', earlier)) == 1 then return {'replayed', redis.call('HGETALL', key('record', earlier))} end
  end
end
if redis.call('EXISTS', key('record', id)) == 1 then return {'created', redis.call('HGETALL', key('record', id))} end

local adapter = ARGV[13]
if adapter ~= '' then
  local state = get(adapter, 'key_id') == key_id and get(adapter, 'state')
  if state ~= 'succeeded' then return {'adapter', state or ''} end
end

local records = 0
for _, each in ipairs({'adapter', 'job'}) do
  records = records + redis.call('ZCARD', key('index', each .. ':' .. key_id))
end
if records + 1 > tonumber(ARGV[12]) then return {'records', tostring(records)} end

local usage = key('usage', key_id)
local active = tonumber(redis.call('HGET', usage, 'active') or 0)
local stored = tonumber(redis.call('HGET', usage, 'stored_bytes') or 0)
if active + 1 > tonumber(ARGV[10]) then return {'active', tostring(active)} end
if stored + bytes > tonumber(ARGV[11]) then return {'stored', string.format('%.0f', stored)} end

redis.call('HSET', key('record', id), 'id', id, 'kind', kind, 'key_id', key_id, 'request', ARGV[4], 'notes', ARGV[5],
  'created_at', string.format('%.6f', now), 'attempt', 0, 'strikes', 0, 'revision', 0, 'stored_bytes', bytes)
redis.call('ZADD', key('index', kind .. ':' .. key_id), 0, id)
redis.call('HINCRBY', usage, 'active', 1)
redis.call('HINCRBY', usage, 'stored_bytes', bytes)
redis.call('ZREM', NAMESPACE .. 'garbage', id)
if adapter ~= '' then
  redis.call('HSET', key('record', id), 'adapter', adapter)
  redis.call('SADD', key('users', adapter), id)
end
if ARGV[7] ~= '' then redis.call('SET', remembered, ARGV[8] .. ' ' .. id, 'EX', ARGV[9]) end
enter(id, 'queued')
return {'created', redis.call('HGETALL', key('record', id))}
