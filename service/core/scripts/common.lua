-- Shared by all scripts. Preceded by the constants NAMESPACE, LEASE (seconds), MAX_ATTEMPTS, MAX_DEATHS, RETRY and
-- LONGEST_RETRY (seconds), EVENTS, LAST_EVENTS and EVENT_SECONDS.
-- Times are the server's, because workers' clocks may differ.

local TERMINAL = {succeeded = true, failed = true, cancelled = true}

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6

local function key(name, id)
  return NAMESPACE .. name .. ':' .. id
end

local function get(id, field)
  return redis.call('HGET', key('record', id), field)
end

local function number(id, field)
  return tonumber(get(id, field) or 0)
end

-- Every event contains the whole state, so a reader that has missed some needs only the last.
local function announce(id)
  local record = redis.call('HMGET', key('record', id), 'state', 'revision', 'attempt', 'progress', 'counts', 'error')
  local data = string.format(
    '{"state":"%s","revision":%s,"attempt":%s,"at":%.6f,"progress":%s,"counts":%s,"error":%s}',
    record[1], record[2], record[3], now, record[4] or 'null', record[5] or 'null', record[6] or 'null')
  redis.call('XADD', key('events', id), 'MAXLEN', '~', EVENTS, '*', 'data', data)
end

-- Objects are deleted now, and again later, in case a stalled worker writes more.
local function discard(id)
  redis.call('ZADD', NAMESPACE .. 'garbage', now, id, now + 2 * LEASE, 'again:' .. id)
end

local function store(id, bytes)
  redis.call('HINCRBY', key('usage', get(id, 'key_id')), 'stored_bytes', bytes - number(id, 'stored_bytes'))
  redis.call('HSET', key('record', id), 'stored_bytes', bytes)
end

-- The quota that one more record with so many bytes and so much work would exceed, and its usage; or nothing.
local function used_up(key_id, bytes, work, max_active, max_stored, max_records, max_work)
  local usage = redis.call('HMGET', key('usage', key_id), 'active', 'stored_bytes', 'work')
  local active, stored, records = tonumber(usage[1] or 0), tonumber(usage[2] or 0), 0
  for _, kind in ipairs({'adapter', 'job'}) do
    records = records + redis.call('ZCARD', key('index', kind .. ':' .. key_id))
  end
  if active + 1 > tonumber(max_active) then return {'active', tostring(active)} end
  if stored + bytes > tonumber(max_stored) then return {'stored_bytes', string.format('%.0f', stored)} end
  if records + 1 > tonumber(max_records) then return {'all', tostring(records)} end
  local active_work = tonumber(usage[3] or 0)
  if active_work + work > tonumber(max_work) then return {'work', string.format('%.0f', active_work)} end
end

local function index(id, state)
  local record = redis.call('HMGET', key('record', id), 'kind', 'key_id')
  return key('index', record[1] .. ':' .. record[2] .. ':' .. state)
end

local function forget_state(id, state)
  redis.call('ZREM', key('state', get(id, 'kind') .. ':' .. state), id)
  redis.call('ZREM', index(id, state), id)
end

-- A queued record is not started before `due`.
local function enter(id, state, due)
  local before = get(id, 'state')
  if before then forget_state(id, before) end
  redis.call('HSET', key('record', id), 'state', state, 'at:' .. state, string.format('%.6f', now))
  redis.call('HINCRBY', key('record', id), 'revision', 1)
  redis.call('ZADD', key('state', get(id, 'kind') .. ':' .. state), due or now, id)
  redis.call('ZADD', index(id, state), 0, id)
  if state == 'queued' then redis.call('SADD', key('waiting', get(id, 'kind')), get(id, 'key_id')) end
  if state ~= 'running' and state ~= 'cancelling' then
    redis.call('DEL', key('members', id))
    redis.call('HDEL', key('record', id), 'lease_until')
  end
  if TERMINAL[state] then
    redis.call('DEL', key('blocks', id))
    redis.call('HINCRBY', key('usage', get(id, 'key_id')), 'active', -1)
    local work = get(id, 'work') or '0'
    if work ~= '0' then redis.call('HINCRBY', key('usage', get(id, 'key_id')), 'work', '-' .. work) end
    local adapter = get(id, 'adapter')
    if adapter then redis.call('SREM', key('users', adapter), id) end
  end
  if state == 'cancelled' or state == 'failed' then
    store(id, 0)
    discard(id)
  end
  announce(id)
  if TERMINAL[state] then
    if get(id, 'webhook') then redis.call('ZADD', NAMESPACE .. 'webhooks', now, id) end
    redis.call('XTRIM', key('events', id), 'MAXLEN', LAST_EVENTS)
    redis.call('EXPIRE', key('events', id), EVENT_SECONDS)
  end
end

local function give_up(id)
  local detail = string.format('Given up after %d starts that ended without progress.',
    number(id, 'strikes') + number(id, 'deaths'))
  local reason = get(id, 'reason')
  if reason then detail = detail .. ' The last one ended with: ' .. reason end
  redis.call('HSET', key('record', id), 'error', cjson.encode({code = 'attempts_exhausted', detail = detail}))
  enter(id, 'failed')
end

-- Members hold a record together, each by its own lease. A dead member is removed before another takes over;
-- until then it may resume.
local function member(id, owner)
  return redis.call('ZSCORE', key('members', id), owner)
end

local function live(id, owner)
  local lease = member(id, owner)
  return lease and tonumber(lease) >= now
end

local function held(id)
  redis.call('ZREMRANGEBYSCORE', key('members', id), '-inf', string.format('(%.6f', now))
  return redis.call('ZCARD', key('members', id)) > 0
end

local function hold(id, owner)
  redis.call('ZADD', key('members', id), now + LEASE, owner)
  redis.call('HSET', key('record', id), 'lease_until', string.format('%.6f', now + LEASE))
end

-- Progress was made, so later failures are counted from zero.
local function advanced(id)
  redis.call('HSET', key('record', id), 'strikes', 0, 'deaths', 0)
end

-- Queues a record, to be started again after a pause that doubles with each failure, the first with `doublings` 0.
local function queue_after(id, doublings)
  enter(id, 'queued', doublings >= 0 and now + math.min(LONGEST_RETRY, RETRY * 2 ^ doublings) or nil)
end

-- Queues a running record whose last worker has died. That may be the worker's fault, so it is no strike, and only
-- many deaths without progress end the record. The first ones cost no pause. Returns the new state.
local function relieve(id)
  redis.call('HSET', key('record', id), 'strikes', math.max(0, number(id, 'strikes') - 1))
  local deaths = redis.call('HINCRBY', key('record', id), 'deaths', 1)
  if deaths >= MAX_DEATHS then give_up(id) else queue_after(id, deaths - 4) end
  return get(id, 'state')
end

local function start(id, owner)
  redis.call('HINCRBY', key('record', id), 'attempt', 1)
  redis.call('HINCRBY', key('record', id), 'strikes', 1)
  redis.call('HSET', key('record', id), 'owner', owner)
  hold(id, owner)
  enter(id, 'running')
  return redis.call('HGETALL', key('record', id))
end
