-- id, kind, key_id, request, notes, stored_bytes, idempotency key or '', fingerprint, seconds, max_active, max_stored,
-- max_records, the adapter that a job needs or '', the id of the request, the most workers that may share it,
-- its work, max_work, '1' if its end is told by a webhook, the job that this one goes on after or ''.
-- Returns the outcome and the record together, so that callers need no second request.
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
local before = ARGV[19]
if before ~= '' then
  if redis.call('EXISTS', key('record', before)) == 0 then return {'before', {}} end
  local other = get(before, 'follower')
  local state = other and get(other, 'state')
  if state == 'queued' or state == 'running' or state == 'succeeded' then return {'before', {other, state}} end
end
local full = used_up(key_id, bytes, tonumber(ARGV[16]), ARGV[10], ARGV[11], ARGV[12], ARGV[17])
if full then return full end

local usage = key('usage', key_id)
redis.call('HSET', key('record', id), 'id', id, 'kind', kind, 'key_id', key_id, 'request', ARGV[4], 'notes', ARGV[5],
  'created_at', string.format('%.6f', now), 'attempt', 0, 'strikes', 0, 'revision', 0, 'stored_bytes', bytes,
  'request_id', ARGV[14], 'workers', ARGV[15], 'work', ARGV[16])
redis.call('ZADD', key('index', kind .. ':' .. key_id), 0, id)
if adapter ~= '' then redis.call('ZADD', key('index', kind .. ':' .. key_id .. ':' .. adapter), 0, id) end
redis.call('HINCRBY', usage, 'active', 1)
redis.call('HINCRBY', usage, 'stored_bytes', bytes)
redis.call('HINCRBY', usage, 'work', ARGV[16])
redis.call('ZREM', NAMESPACE .. 'garbage', id)
if ARGV[18] == '1' then redis.call('HSET', key('record', id), 'webhook', 1) end
if adapter ~= '' then
  redis.call('HSET', key('record', id), 'adapter', adapter)
  redis.call('SADD', key('users', adapter), id)
end
if before ~= '' then redis.call('HSET', key('record', before), 'follower', id) end
if ARGV[7] ~= '' then redis.call('SET', remembered, ARGV[8] .. ' ' .. id, 'EX', ARGV[9]) end
enter(id, 'queued')
return {'created', redis.call('HGETALL', key('record', id))}
